//! Tells cargo that the migrations are part of the crate: the macro that embeds them cannot.
fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
