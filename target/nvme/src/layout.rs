//! The one macro by which every structure of this crate proves its place on the wire.

/// Asserts at compile time that a type has a given size and that each named field has a given
/// offset, both in bytes.
macro_rules! assert_layout {
    ($type:ty, $size:expr, { $($field:ident @ $offset:expr),* $(,)? }) => {
        const _: () = {
            assert!(size_of::<$type>() == $size);
            assert!(align_of::<$type>() == 1);
            $(assert!(core::mem::offset_of!($type, $field) == $offset);)*
        };
    };
}
