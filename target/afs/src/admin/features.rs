//! Get and Set Features (CONFORMANCE 4.6).

use super::{AdminQueue, Answer, data};
use crate::controller::Role;
use crate::events::Event;
use crate::limits::QUEUES_MAX;
use afs_fabric::{Completion, Request};
use afs_nvme::Status;
use afs_nvme::feature::{
    HOST_IDENTIFIER_EXTENDED, HostBehavior, QueueCounts, Select, capability, fid,
};
use zerocopy::IntoBytes;

/// What Get Features with SEL = 3 says of a feature that can be set and is not saved.
const CHANGEABLE: u32 = capability::CHANGEABLE;

impl AdminQueue {
    /// Events that this controller can send, as OAES says.
    pub(super) fn supported_events(&self) -> u32 {
        match self.controller.role {
            Role::Io(_) => Event::NamespaceAttribute.bit() | Event::AnaChange.bit(),
            Role::Discovery(_) => Event::DiscoveryChange.bit(),
        }
    }

    pub(super) async fn get_feature(
        &self,
        feature: u8,
        select: Select,
        cdw11: u32,
        request: &Request,
    ) -> Answer {
        if !self.offers(feature) {
            return Err(Status::INVALID_FIELD);
        }
        match select {
            Select::Capabilities if feature == fid::HOST_IDENTIFIER => {
                Ok(Completion::with_result(0))
            }
            Select::Capabilities => Ok(Completion::with_result(CHANGEABLE.into())),
            Select::Default | Select::Saved => self.default_feature(feature, request).await,
            Select::Current => self.current_feature(feature, cdw11, request).await,
        }
    }

    async fn default_feature(&self, feature: u8, request: &Request) -> Answer {
        match feature {
            fid::HOST_BEHAVIOR => data(request, 512, |_| {}).await,
            fid::HOST_IDENTIFIER => Err(Status::INVALID_FIELD),
            _ => Ok(Completion::with_result(0)),
        }
    }

    async fn current_feature(&self, feature: u8, cdw11: u32, request: &Request) -> Answer {
        let controller = &self.controller;
        let result = match feature {
            fid::POWER_MANAGEMENT => 0,
            fid::NUMBER_OF_QUEUES => {
                let granted = controller.granted().unwrap_or(QUEUES_MAX);
                QueueCounts { submission: granted, completion: granted }.to_dword()
            }
            fid::ASYNC_EVENT_CONFIGURATION => controller.events.enabled(),
            fid::KEEP_ALIVE_TIMEOUT => controller.keep_alive.kato_ms(),
            fid::HOST_BEHAVIOR => {
                let behavior = controller.features.lock().host_behavior;
                return data(request, 512, |out| {
                    out[..behavior.len()].copy_from_slice(&behavior);
                })
                .await;
            }
            fid::HOST_IDENTIFIER if cdw11 & HOST_IDENTIFIER_EXTENDED != 0 => {
                let id = controller.host.id.0;
                return data(request, 16, |out| out.copy_from_slice(&id)).await;
            }
            fid::HOST_IDENTIFIER => return Err(Status::INVALID_FIELD),
            // The vector that was asked about comes back (CONFORMANCE 4.6).
            fid::INTERRUPT_VECTOR => {
                controller.features.lock().interrupt_vector & !0xFFFF | cdw11 & 0xFFFF
            }
            plain => {
                let mut features = controller.features.lock();
                *features.plain(plain).ok_or(Status::INVALID_FIELD)?
            }
        };
        Ok(Completion::with_result(result.into()))
    }

    pub(super) async fn set_feature(
        &self,
        feature: u8,
        save: bool,
        cdw11: u32,
        request: &mut Request,
    ) -> Answer {
        if !self.offers(feature) {
            return Err(Status::INVALID_FIELD.dnr());
        }
        if save {
            return Err(Status::FEATURE_NOT_SAVEABLE.dnr());
        }
        let controller = &self.controller;
        match feature {
            fid::POWER_MANAGEMENT if cdw11 & 0x1F != 0 => return Err(Status::INVALID_FIELD.dnr()),
            fid::POWER_MANAGEMENT => {}
            fid::NUMBER_OF_QUEUES => return self.grant_queues(cdw11),
            fid::ASYNC_EVENT_CONFIGURATION => {
                controller.events.enable(cdw11, self.supported_events());
            }
            fid::KEEP_ALIVE_TIMEOUT => controller.keep_alive.set_kato_ms(cdw11),
            fid::HOST_BEHAVIOR => return self.set_host_behavior(request).await,
            // It came with Connect (CONFORMANCE 4.6).
            fid::HOST_IDENTIFIER => return Err(Status::COMMAND_SEQUENCE_ERROR.dnr()),
            plain => {
                let mut features = controller.features.lock();
                *features.plain(plain).ok_or(Status::INVALID_FIELD.dnr())? = cdw11;
            }
        }
        Ok(Completion::success())
    }

    fn offers(&self, feature: u8) -> bool {
        let common = matches!(feature, fid::ASYNC_EVENT_CONFIGURATION | fid::KEEP_ALIVE_TIMEOUT);
        let io = matches!(
            feature,
            fid::ARBITRATION
                | fid::POWER_MANAGEMENT
                | fid::TEMPERATURE_THRESHOLD
                | fid::ERROR_RECOVERY
                | fid::NUMBER_OF_QUEUES
                | fid::INTERRUPT_COALESCING
                | fid::INTERRUPT_VECTOR
                | fid::WRITE_ATOMICITY
                | fid::HOST_BEHAVIOR
                | fid::HOST_IDENTIFIER
        );
        common || io && matches!(self.controller.role, Role::Io(_))
    }

    fn grant_queues(&self, cdw11: u32) -> Answer {
        let asked = QueueCounts::from_dword(cdw11).ok_or(Status::INVALID_FIELD.dnr())?;
        let count = asked.submission.min(asked.completion).min(QUEUES_MAX);
        if !self.controller.grant(count) {
            return Err(Status::COMMAND_SEQUENCE_ERROR);
        }
        let granted = QueueCounts { submission: count, completion: count };
        Ok(Completion::with_result(granted.to_dword().into()))
    }

    async fn set_host_behavior(&self, request: &mut Request) -> Answer {
        let expected = size_of::<HostBehavior>();
        if request.data_len() as usize != expected {
            return Err(Status::DATA_SGL_LENGTH_INVALID.dnr());
        }
        let received = request.receive().await.map_err(|error| error.status())?;
        let mut kept = [0; 4];
        for (kept, given) in kept.iter_mut().zip(received.as_bytes()) {
            *kept = *given;
        }
        self.controller.features.lock().host_behavior = kept;
        Ok(Completion::success())
    }
}
