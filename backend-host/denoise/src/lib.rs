//! Removes noise from a picture and keeps its edges: anisotropic diffusion (P. Perona and J. Malik, "Scale-space and
//! edge detection using anisotropic diffusion", IEEE PAMI 12(7), 1990), on tiles that exchange their borders as
//! messages.
//!
//! [`Tile`] is a [`Kernel`](k2k_core::Kernel): the same handler runs on a host thread and in a GPU block. It has no
//! `alloc`, its pixels lie in memory that is lent to it, and it computes in `f32` with additions, multiplications and
//! divisions in a fixed order. IEEE 754 leaves no freedom in those, and Rust does not fuse them, so the result is that
//! of [`diffuse_reference`] bit for bit, however many tiles there are and wherever they run.
//!
//! | module | what |
//! | --- | --- |
//! | [`diffusion`] | the arithmetic, and the sequential reference |
//! | [`shape`] | where a tile's pixels lie in the memory lent to it |
//! | [`grid`] | how a picture is cut into tiles |
//! | [`protocol`] | the messages |
//! | [`tile`] | the handler |
#![no_std]

pub mod diffusion;
pub mod grid;
pub mod protocol;
pub mod shape;
pub mod tile;

pub use diffusion::{Params, ParamsError, diffuse_reference};
pub use grid::{Area, Grid};
pub use protocol::{Outcome, Report, Start};
pub use shape::{Shape, ShapeError, Side};
pub use tile::{StorageError, Tile};
