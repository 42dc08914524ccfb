//! The entry points, by what they are for.

mod fabric;
mod ring;
