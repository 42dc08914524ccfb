//! The entry points, by what they are for.

mod fabric;
mod layout;
mod ring;
