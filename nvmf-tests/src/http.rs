//! Just enough HTTP to ask the daemons' own pages: one GET per connection, on loopback.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

const MAX_ANSWER: u64 = 16 << 20;

/// Fetches a page; any status but 200 is an error that carries the answer.
pub fn get(address: SocketAddr, path: &str) -> Result<String> {
    let what = || format!("GET http://{address}{path}");
    let patience = Duration::from_secs(10);
    let mut stream = TcpStream::connect_timeout(&address, patience).with_context(what)?;
    stream.set_read_timeout(Some(patience))?;
    // HTTP/1.0, so that the answer is neither chunked nor kept open.
    stream.write_all(
        format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: */*\r\n\r\n").as_bytes(),
    )?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).with_context(what)?;
    let answer = String::from_utf8_lossy(&answer);
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        bail!("{}: no HTTP answer: {answer}", what())
    };
    let status = head.split_whitespace().nth(1).unwrap_or("none");
    if status != "200" {
        bail!("{}: status {status}: {body}", what());
    }
    Ok(body.to_owned())
}

/// Fetches a JSON document.
pub fn get_json(address: SocketAddr, path: &str) -> Result<Value> {
    let body = get(address, path)?;
    serde_json::from_str(&body)
        .with_context(|| format!("http://{address}{path} is not JSON: {body}"))
}

/// A scrape of `/metrics`.
#[derive(Clone, Debug)]
pub struct Metrics {
    text: String,
}

impl Metrics {
    /// Reads the metrics of a daemon.
    pub fn scrape(address: SocketAddr) -> Result<Self> {
        Ok(Self { text: get(address, "/metrics")? })
    }

    /// Takes a scrape that somebody else has made.
    pub fn of(text: String) -> Self {
        Self { text }
    }

    /// The sum over all series of a metric; `None` when there is none.
    pub fn sum(&self, name: &str) -> Option<f64> {
        self.sum_where(name, "")
    }

    /// The sum over the series whose labels contain `label`, as in `operation="read"`.
    pub fn sum_where(&self, name: &str, label: &str) -> Option<f64> {
        let values = self.text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let labels = match rest.as_bytes().first()? {
                b'{' => rest.get(1..rest.rfind('}')?)?,
                b' ' => "",
                _ => return None,
            };
            if !labels.contains(label) {
                return None;
            }
            rest.rsplit(' ').next()?.parse::<f64>().ok()
        });
        values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_one_metric_are_summed_and_others_left_out() {
        let text = "# HELP x X.\nx{a=\"1\"} 2\nx{a=\"2\"} 3.5\nx_total 9\ny 1\n".to_owned();
        let metrics = Metrics { text };
        assert_eq!(metrics.sum("x"), Some(5.5));
        assert_eq!(metrics.sum_where("x", "a=\"2\""), Some(3.5));
        assert_eq!(metrics.sum("y"), Some(1.0));
        assert_eq!(metrics.sum("z"), None);
    }
}
