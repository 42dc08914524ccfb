//! Where a tile's pixels lie in the memory lent to it.
//!
//! ```text
//!   storage:  | buffer 0                      | buffer 1                      |   iteration i is in buffer i mod 2
//!             | channel 0 | channel 1 | ...   | channel 0 | channel 1 | ...   |
//!
//!   channel:   . n n n n .     n, e, s, w: the neighbours' borders, or a copy of the own border where the
//!              w o o o o e                 picture ends
//!              w o o o o e     o: the tile's own pixels
//!              . s s s s .     .: never used
//! ```
//!
//! The frame of a buffer is filled by messages while the other buffer is in use. So a neighbour that is one iteration
//! ahead disturbs nobody, and no halo is copied twice.

use core::fmt;

/// Buffers of a tile.
const BUFFERS: usize = 2;

/// One of a tile's four neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Side {
    /// Above.
    North = 0,
    /// To the right.
    East = 1,
    /// Below.
    South = 2,
    /// To the left.
    West = 3,
}

impl Side {
    /// All four, by number.
    pub const ALL: [Self; 4] = [Self::North, Self::East, Self::South, Self::West];

    /// The side of that number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::North),
            1 => Some(Self::East),
            2 => Some(Self::South),
            3 => Some(Self::West),
            _ => None,
        }
    }

    /// What the neighbour on this side calls this border.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::North => Self::South,
            Self::East => Self::West,
            Self::South => Self::North,
            Self::West => Self::East,
        }
    }

    /// Its number, to index arrays of four.
    #[inline(always)]
    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

/// Size of a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    width: usize,
    height: usize,
    channels: usize,
}

/// Not the size of a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShapeError {
    /// Width given.
    pub width: u32,
    /// Height given.
    pub height: u32,
    /// Channels given.
    pub channels: u32,
}

impl fmt::Display for ShapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a tile of {} x {} pixels and {} channels: each must be at least 1, and all together at most 2^32 - 1 values, \
             twice and with a frame of one pixel",
            self.width, self.height, self.channels
        )
    }
}

impl core::error::Error for ShapeError {}

/// Which cells along a border.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cells {
    /// The outermost pixels of the tile's own.
    Own,
    /// The frame's, which belong to the neighbour.
    Frame,
}

impl Shape {
    /// A tile of `width` × `height` pixels of `channels` values each.
    ///
    /// # Errors
    /// [`ShapeError`] if one of them is 0, or they need more than 2³² − 1 values of memory.
    pub const fn new(width: u32, height: u32, channels: u32) -> Result<Self, ShapeError> {
        let error = Err(ShapeError { width, height, channels });
        // Neither product overflows: 2^33 · 2^33 would, so the factors are bounded first.
        if width == 0 || height == 0 || channels == 0 || width > u32::MAX - 2 || height > u32::MAX - 2 {
            return error;
        }
        let plane = (width as u64 + 2) * (height as u64 + 2);
        match plane.checked_mul(channels as u64 * BUFFERS as u64) {
            Some(len) if len <= u32::MAX as u64 => {
                Ok(Self { width: width as usize, height: height as usize, channels: channels as usize })
            }
            _ => error,
        }
    }

    /// Pixels in a row.
    #[must_use]
    pub const fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    #[must_use]
    pub const fn height(&self) -> usize {
        self.height
    }

    /// Values per pixel.
    #[must_use]
    pub const fn channels(&self) -> usize {
        self.channels
    }

    /// Values that the storage must hold.
    #[must_use]
    pub const fn storage_len(&self) -> usize {
        BUFFERS * self.buffer_len()
    }

    /// Length of a row with its frame.
    #[inline(always)]
    pub(crate) const fn stride(&self) -> usize {
        self.width + 2
    }

    /// Values of one channel of one buffer, frame included.
    #[inline(always)]
    pub(crate) const fn plane_len(&self) -> usize {
        self.stride() * (self.height + 2)
    }

    #[inline(always)]
    pub(crate) const fn buffer_len(&self) -> usize {
        self.channels * self.plane_len()
    }

    /// Pixels along a border.
    const fn edge_len(&self, side: Side) -> usize {
        match side {
            Side::North | Side::South => self.width,
            Side::East | Side::West => self.height,
        }
    }

    /// Values of a border: all channels, one after the other.
    #[inline]
    pub(crate) const fn border_len(&self, side: Side) -> usize {
        self.channels * self.edge_len(side)
    }

    /// Positions in the storage of a border's values, from number `first` on, for the buffer of `iteration`.
    #[inline]
    pub(crate) fn border(&self, side: Side, cells: Cells, iteration: u32, first: usize) -> Border {
        let outer = (cells == Cells::Own) as usize;
        let (start, step) = match side {
            Side::North => (outer * self.stride() + 1, 1),
            Side::South => ((self.height + 1 - outer) * self.stride() + 1, 1),
            Side::West => (self.stride() + outer, self.stride()),
            Side::East => (self.stride() + self.width + 1 - outer, self.stride()),
        };
        let len = self.edge_len(side);
        // No border is empty; said this way, no path to a panic is compiled.
        let channel = first.checked_div(len).unwrap_or(0);
        let row_start = self.buffer_start(iteration) + channel * self.plane_len() + start;
        Border { len, step, plane_len: self.plane_len(), row_start, index: first - channel * len }
    }

    #[inline(always)]
    const fn buffer_start(&self, iteration: u32) -> usize {
        (iteration % BUFFERS as u32) as usize * self.buffer_len()
    }

    fn rows(&self, iteration: u32, channel: usize) -> impl Iterator<Item = core::ops::Range<usize>> + use<> {
        assert!(channel < self.channels, "a tile of {} channels has no channel {channel}", self.channels);
        let start = self.buffer_start(iteration) + channel * self.plane_len() + self.stride() + 1;
        let (stride, width) = (self.stride(), self.width);
        (0..self.height).map(move |y| start + y * stride..start + y * stride + width)
    }

    /// Puts pixels of a picture into a tile's storage, before it starts. `picture` is one channel, from the tile's
    /// first pixel on; its rows are `picture_stride` apart.
    ///
    /// # Panics
    /// If there is no such channel, or either slice is too short.
    pub fn load(&self, storage: &mut [f32], channel: usize, picture: &[f32], picture_stride: usize) {
        for (y, row) in self.rows(0, channel).enumerate() {
            storage[row].copy_from_slice(&picture[y * picture_stride..][..self.width]);
        }
    }

    /// Takes the pixels after `iterations` out of a tile's storage; the counterpart of [`load`](Self::load).
    ///
    /// # Panics
    /// If there is no such channel, or either slice is too short.
    pub fn unload(&self, storage: &[f32], iterations: u32, channel: usize, picture: &mut [f32], picture_stride: usize) {
        for (y, row) in self.rows(iterations, channel).enumerate() {
            picture[y * picture_stride..][..self.width].copy_from_slice(&storage[row]);
        }
    }
}

/// Walks along a border, channel after channel, without end.
#[derive(Clone, Debug)]
pub(crate) struct Border {
    len: usize,
    step: usize,
    plane_len: usize,
    /// Position of the current channel's first value.
    row_start: usize,
    /// Next value of the current channel.
    index: usize,
}

impl Iterator for Border {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        if self.index == self.len {
            self.index = 0;
            self.row_start += self.plane_len;
        }
        let position = self.row_start + self.index * self.step;
        self.index += 1;
        Some(position)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec;
    use std::vec::Vec;

    fn positions(shape: &Shape, side: Side, cells: Cells) -> Vec<usize> {
        shape.border(side, cells, 0, 0).take(shape.border_len(side)).collect()
    }

    #[test]
    fn borders_lie_where_the_drawing_says() {
        //  0  1  2  3
        //  4 [5  6] 7
        //  8 [9 10] 11
        // 12 13 14 15
        let shape = Shape::new(2, 2, 1).unwrap();
        assert_eq!(shape.storage_len(), 32);
        assert_eq!(positions(&shape, Side::North, Cells::Own), [5, 6]);
        assert_eq!(positions(&shape, Side::North, Cells::Frame), [1, 2]);
        assert_eq!(positions(&shape, Side::South, Cells::Own), [9, 10]);
        assert_eq!(positions(&shape, Side::South, Cells::Frame), [13, 14]);
        assert_eq!(positions(&shape, Side::West, Cells::Own), [5, 9]);
        assert_eq!(positions(&shape, Side::West, Cells::Frame), [4, 8]);
        assert_eq!(positions(&shape, Side::East, Cells::Own), [6, 10]);
        assert_eq!(positions(&shape, Side::East, Cells::Frame), [7, 11]);
    }

    #[test]
    fn a_border_can_be_entered_anywhere() {
        let shape = Shape::new(3, 2, 3).unwrap();
        for side in Side::ALL {
            for cells in [Cells::Own, Cells::Frame] {
                let all = positions(&shape, side, cells);
                for first in 0..all.len() {
                    let rest: Vec<usize> = shape.border(side, cells, 1, first).take(all.len() - first).collect();
                    let expected: Vec<usize> = all[first..].iter().map(|p| p + shape.buffer_len()).collect();
                    assert_eq!(rest, expected);
                }
            }
        }
    }

    #[test]
    fn what_is_loaded_is_unloaded() {
        let shape = Shape::new(3, 2, 2).unwrap();
        let picture: Vec<f32> = (0..20).map(|v| v as f32).collect();
        let mut storage = vec![-1.0; shape.storage_len()];
        shape.load(&mut storage, 1, &picture[6..], 5);
        let mut back = [0.0; 20];
        shape.unload(&storage, 2, 1, &mut back[6..], 5);
        assert_eq!(back[6..9], [6.0, 7.0, 8.0]);
        assert_eq!(back[11..14], [11.0, 12.0, 13.0]);
        assert_eq!(back.iter().filter(|&&v| v != 0.0).count(), 6);
    }

    #[test]
    fn shapes_without_pixels_or_beyond_memory_are_refused() {
        for (width, height, channels) in [
            (0, 1, 1),
            (1, 0, 1),
            (1, 1, 0),
            (u32::MAX, 1, 1),
            (1, u32::MAX, 1),
            (1 << 20, 1 << 20, 3),
            (1, 1, u32::MAX),
        ] {
            assert_eq!(Shape::new(width, height, channels), Err(ShapeError { width, height, channels }));
        }
    }
}
