//! The entry points, by what they are for.

mod fabric;
mod flag;
mod layout;
mod ring;
