//! [`SimLink`]: the network as the replication code sees it.

use afs_env::{Answer, Buffer, HEADER_BYTES, Link, LinkError};

use super::{Address, SimNet};

/// A message of a [`Link`], as a service gets it.
#[derive(Clone, Debug)]
pub struct LinkMessage {
    /// The header.
    pub header: [u8; HEADER_BYTES],
    /// The data beside it.
    pub data: Option<Buffer>,
    /// The largest answer.
    pub reply_max: usize,
}

/// A way from one machine to one service of another.
#[derive(Clone)]
pub struct SimLink {
    net: SimNet,
    from: Address,
    to: Address,
    service: String,
}

impl SimNet {
    /// A link from the machine `from` to a service that [`serve_link`](SimNet::serve_link) serves.
    pub fn link(&self, from: Address, to: Address, service: &str) -> SimLink {
        SimLink { net: self.clone(), from, to, service: service.into() }
    }

    /// [`serve`](SimNet::serve) for links.
    ///
    /// # Panics
    /// If the handler answers with more than was asked for.
    pub fn serve_link<F>(
        &self,
        address: Address,
        service: &str,
        handler: impl Fn(Address, [u8; HEADER_BYTES], Option<Buffer>) -> F + 'static,
    ) where
        F: Future<Output = Answer> + 'static,
    {
        self.serve(address, service, move |from, message: LinkMessage| {
            let answer = handler(from, message.header, message.data);
            async move {
                let answer = answer.await;
                let bytes = answer.data.as_ref().map_or(0, |data| data.len());
                assert!(bytes <= message.reply_max, "{bytes} bytes answered");
                answer
            }
        });
    }
}

impl SimLink {
    /// Where it leads.
    pub fn to(&self) -> Address {
        self.to
    }
}

impl Link for SimLink {
    fn is_settled(&self) -> bool {
        self.net.is_settled(self.from, self.to)
    }

    async fn settle(&self) {
        self.net.settle(self.from, self.to).await;
    }

    async fn call(
        &self,
        header: [u8; HEADER_BYTES],
        data: Option<Buffer>,
        reply_max: usize,
    ) -> Result<Answer, LinkError> {
        if !self.net.connected(self.from, self.to) {
            return Err(LinkError::Unreachable);
        }
        let message = LinkMessage { header, data, reply_max };
        self.net.call(self.from, self.to, &self.service, message).await
    }
}
