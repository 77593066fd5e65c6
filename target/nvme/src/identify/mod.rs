//! Identify structures (CONFORMANCE 4.2 to 4.4): every answer is one page of 4096 bytes.
//! `afs` fills them in; the host library reads them.

mod controller;
mod descriptors;
mod lists;
mod namespace;

pub use controller::{
    IdentifyController, IdentifyNvmController, PowerState, anacap, cmic, cntrltype, ctratt, lpa,
    oaes, oncs, sgls, vwc,
};
pub use descriptors::{Descriptor, DescriptorList, Descriptors};
pub use lists::{CommandSetVectors, ControllerList, NamespaceList};
pub use namespace::{
    IdentifyIndependentNamespace, IdentifyNamespace, IdentifyNvmNamespace, LbaFormat, dlfeat, nmic,
    nsattr, nsfeat, nstat,
};

/// Bytes of every Identify answer.
pub const IDENTIFY_BYTES: usize = 4096;

/// Command set identifier of the NVM command set.
pub const CSI_NVM: u8 = 0;

/// Which structure an Identify command asks for (CONFORMANCE 4.2).
pub mod cns {
    /// [`super::IdentifyNamespace`] of an active namespace.
    pub const NAMESPACE: u8 = 0x00;
    /// [`super::IdentifyController`].
    pub const CONTROLLER: u8 = 0x01;
    /// [`super::NamespaceList`] of active namespaces.
    pub const ACTIVE_NAMESPACES: u8 = 0x02;
    /// [`super::DescriptorList`] of a namespace.
    pub const DESCRIPTORS: u8 = 0x03;
    /// [`super::IdentifyNvmNamespace`], by command set.
    pub const COMMAND_SET_NAMESPACE: u8 = 0x05;
    /// [`super::IdentifyNvmController`], by command set.
    pub const COMMAND_SET_CONTROLLER: u8 = 0x06;
    /// Active namespaces of a command set.
    pub const COMMAND_SET_ACTIVE_NAMESPACES: u8 = 0x07;
    /// [`super::IdentifyIndependentNamespace`].
    pub const INDEPENDENT_NAMESPACE: u8 = 0x08;
    /// [`super::NamespaceList`] of allocated namespaces.
    pub const ALLOCATED_NAMESPACES: u8 = 0x10;
    /// [`super::IdentifyNamespace`] of an allocated namespace.
    pub const ALLOCATED_NAMESPACE: u8 = 0x11;
    /// [`super::ControllerList`] of a namespace.
    pub const NAMESPACE_CONTROLLERS: u8 = 0x12;
    /// [`super::ControllerList`] of the subsystem.
    pub const SUBSYSTEM_CONTROLLERS: u8 = 0x13;
    /// Allocated namespaces of a command set.
    pub const COMMAND_SET_ALLOCATED_NAMESPACES: u8 = 0x1a;
    /// [`super::CommandSetVectors`].
    pub const COMMAND_SETS: u8 = 0x1c;
}

#[cfg(test)]
mod tests;
