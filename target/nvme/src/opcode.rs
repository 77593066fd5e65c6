//! Opcodes of the commands that hosts send, served or refused by name (CONFORMANCE 3, 4, 5.1).
//! Each group has `name` for logs and metrics.

/// Opcode of every fabrics command; FCTYPE tells them apart.
pub const FABRICS: u8 = 0x7f;

macro_rules! opcodes {
    ($($value:literal $name:ident $text:literal)*) => {
        $(#[doc = concat!($text, " (", stringify!($value), ").")]
        pub const $name: u8 = $value;)*

        /// Lower-case name for logs and metrics; `None` for what has no constant here.
        pub const fn name(opcode: u8) -> Option<&'static str> {
            match opcode {
                $($name => Some($text),)*
                _ => None,
            }
        }
    };
}

/// Admin commands (NVMe Base 2.0 §5).
pub mod admin {
    opcodes! {
        0x02 GET_LOG_PAGE "get_log_page"
        0x06 IDENTIFY "identify"
        0x08 ABORT "abort"
        0x09 SET_FEATURES "set_features"
        0x0a GET_FEATURES "get_features"
        0x0c ASYNC_EVENT_REQUEST "async_event_request"
        0x18 KEEP_ALIVE "keep_alive"
    }
}

/// I/O commands of the NVM command set (NVMe NVM Command Set 1.0 §3).
pub mod io {
    opcodes! {
        0x00 FLUSH "flush"
        0x01 WRITE "write"
        0x02 READ "read"
        0x05 COMPARE "compare"
        0x08 WRITE_ZEROES "write_zeroes"
        0x09 DATASET_MANAGEMENT "dataset_management"
        0x0c VERIFY "verify"
    }
}

/// Fabrics command types, byte 4 of a command with opcode [`FABRICS`] (CONFORMANCE 3).
pub mod fabrics {
    opcodes! {
        0x00 PROPERTY_SET "property_set"
        0x01 CONNECT "connect"
        0x04 PROPERTY_GET "property_get"
        0x05 AUTH_SEND "auth_send"
        0x06 AUTH_RECEIVE "auth_receive"
        0x08 DISCONNECT "disconnect"
    }
}
