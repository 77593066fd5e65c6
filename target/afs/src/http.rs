//! The node's own HTTP server: `/metrics` for Prometheus, `/healthz` for whoever restarts it, `/status` for people.
//!
//! `daemon` binds it before anything slow begins, so that a node that is still recovering its disks can be watched.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::metrics::Metrics;

/// What the server shows besides metrics.
pub trait Shown: Send + Sync + 'static {
    /// `Ok` while hosts are served, else what the node is doing instead.
    fn health(&self) -> Result<(), String>;
    /// Everything that a person may want to know, as JSON.
    fn status(&self) -> serde_json::Value;
}

struct Pages {
    metrics: Arc<Metrics>,
    shown: Arc<dyn Shown>,
}

/// A bound server that does not answer yet.
pub struct HttpServer {
    listener: TcpListener,
}

impl HttpServer {
    /// Takes the port.
    pub async fn bind(address: SocketAddr) -> io::Result<HttpServer> {
        Ok(HttpServer { listener: TcpListener::bind(address).await? })
    }

    /// Where it is reached; tells the port where port 0 was asked for.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until `stop` is ready.
    pub async fn serve(
        self,
        metrics: Arc<Metrics>,
        shown: Arc<dyn Shown>,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let router = Router::new()
            .route("/", get(index))
            .route("/metrics", get(show_metrics))
            .route("/healthz", get(show_health))
            .route("/status", get(show_status))
            .with_state(Arc::new(Pages { metrics, shown }));
        axum::serve(self.listener, router).with_graceful_shutdown(stop).await
    }
}

async fn index() -> &'static str {
    "afs node\n\n/metrics  figures for Prometheus\n/healthz  200 while hosts are served\n/status   what this node is doing, as JSON\n"
}

async fn show_metrics(State(pages): State<Arc<Pages>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], pages.metrics.render())
}

async fn show_health(State(pages): State<Arc<Pages>>) -> (StatusCode, String) {
    match pages.shown.health() {
        Ok(()) => (StatusCode::OK, "serving\n".to_owned()),
        Err(instead) => (StatusCode::SERVICE_UNAVAILABLE, format!("{instead}\n")),
    }
}

async fn show_status(State(pages): State<Arc<Pages>>) -> Json<serde_json::Value> {
    Json(pages.shown.status())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use super::*;

    #[derive(Default)]
    struct Fake {
        serving: AtomicBool,
    }

    impl Shown for Fake {
        fn health(&self) -> Result<(), String> {
            if self.serving.load(Relaxed) { Ok(()) } else { Err("opening disks".to_owned()) }
        }

        fn status(&self) -> serde_json::Value {
            serde_json::json!({ "controllers": [] })
        }
    }

    async fn start() -> (Arc<Fake>, String) {
        let server = HttpServer::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let url = format!("http://{}", server.address().unwrap());
        let shown = Arc::new(Fake::default());
        let pages: Arc<dyn Shown> = shown.clone();
        tokio::spawn(server.serve(Metrics::new(1), pages, std::future::pending()));
        (shown, url)
    }

    async fn get(url: &str) -> (u16, String) {
        let answer = reqwest::get(url).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    #[tokio::test]
    async fn health_is_bad_until_hosts_are_served() {
        let (shown, url) = start().await;
        assert_eq!(get(&format!("{url}/healthz")).await, (503, "opening disks\n".to_owned()));
        shown.serving.store(true, Relaxed);
        assert_eq!(get(&format!("{url}/healthz")).await, (200, "serving\n".to_owned()));
    }

    #[tokio::test]
    async fn metrics_and_status_answer_while_the_node_starts() {
        let (_shown, url) = start().await;
        let (code, text) = get(&format!("{url}/metrics")).await;
        assert!(code == 200 && text.contains("afs_build_info"), "{text}");
        assert_eq!(get(&format!("{url}/status")).await, (200, r#"{"controllers":[]}"#.to_owned()));
        assert_eq!(get(&format!("{url}/nothing")).await.0, 404);
        assert!(get(&url).await.1.contains("/metrics"));
    }
}
