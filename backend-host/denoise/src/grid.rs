//! How a picture is cut into tiles.

use crate::shape::Side;

/// A part of the picture, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// First column.
    pub x: u32,
    /// First row.
    pub y: u32,
    /// Columns, at least 1.
    pub width: u32,
    /// Rows, at least 1.
    pub height: u32,
}

/// Columns and rows of tiles, numbered row by row. Sizes differ by at most one pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    width: u32,
    height: u32,
    columns: u32,
    rows: u32,
}

impl Grid {
    /// Cuts a picture into `tiles` tiles with the shortest borders between them; into fewer, as many as go, if it has
    /// not enough pixels in a direction. `None` if any number is 0.
    #[must_use]
    pub fn new(width: u32, height: u32, tiles: u32) -> Option<Self> {
        // No more tiles than pixels can be had.
        let most = u64::from(tiles).min(u64::from(width) * u64::from(height)) as u32;
        (1..=most).rev().find_map(|tiles| {
            (1..=tiles.min(width))
                .filter(|columns| tiles.is_multiple_of(*columns) && tiles / columns <= height)
                .map(|columns| Self { width, height, columns, rows: tiles / columns })
                .min_by_key(Self::border_len)
        })
    }

    /// Pixels along the borders between tiles.
    fn border_len(&self) -> u64 {
        u64::from(self.columns - 1) * u64::from(self.height) + u64::from(self.rows - 1) * u64::from(self.width)
    }

    /// Tiles beside one another.
    #[must_use]
    pub const fn columns(&self) -> u32 {
        self.columns
    }

    /// Tiles above one another.
    #[must_use]
    pub const fn rows(&self) -> u32 {
        self.rows
    }

    /// Number of tiles.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.columns * self.rows
    }

    /// Never: a grid has at least one tile.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// The pixels of a tile.
    #[must_use]
    pub fn area(&self, tile: u32) -> Area {
        let cut = |i: u32, of: u32, parts: u32| (u64::from(i) * u64::from(of) / u64::from(parts)) as u32;
        let (column, row) = (tile % self.columns, tile / self.columns);
        let (x, y) = (cut(column, self.width, self.columns), cut(row, self.height, self.rows));
        Area {
            x,
            y,
            width: cut(column + 1, self.width, self.columns) - x,
            height: cut(row + 1, self.height, self.rows) - y,
        }
    }

    /// The tile on that side of a tile.
    #[must_use]
    pub const fn neighbour(&self, tile: u32, side: Side) -> Option<u32> {
        let (column, row) = (tile % self.columns, tile / self.columns);
        match side {
            Side::North if row > 0 => Some(tile - self.columns),
            Side::South if row + 1 < self.rows => Some(tile + self.columns),
            Side::West if column > 0 => Some(tile - 1),
            Side::East if column + 1 < self.columns => Some(tile + 1),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec;

    fn columns_and_rows(width: u32, height: u32, tiles: u32) -> Option<(u32, u32)> {
        Grid::new(width, height, tiles).map(|grid| (grid.columns(), grid.rows()))
    }

    #[test]
    fn borders_are_short() {
        assert_eq!(columns_and_rows(100, 100, 4), Some((2, 2)));
        assert_eq!(columns_and_rows(300, 100, 3), Some((3, 1)));
        assert_eq!(columns_and_rows(100, 300, 12), Some((2, 6)));
        assert_eq!(columns_and_rows(100, 50, 7), Some((7, 1)));
    }

    #[test]
    fn a_picture_with_too_few_pixels_gets_fewer_tiles() {
        assert_eq!(columns_and_rows(5, 5, 7), Some((2, 3)));
        assert_eq!(columns_and_rows(1, 1, 64), Some((1, 1)));
        assert_eq!(columns_and_rows(2, 2, u32::MAX), Some((2, 2)));
        assert_eq!(columns_and_rows(0, 5, 1), None);
        assert_eq!(columns_and_rows(5, 5, 0), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_pixel_is_in_one_tile_and_neighbours_share_a_border(
            width in 1u32..20, height in 1u32..20, tiles in 1u32..40,
        ) {
            let grid = Grid::new(width, height, tiles).unwrap();
            let mut covered = vec![0; (width * height) as usize];
            for tile in 0..grid.len() {
                let area = grid.area(tile);
                prop_assert!(area.width > 0 && area.height > 0);
                for y in area.y..area.y + area.height {
                    for x in area.x..area.x + area.width {
                        covered[(y * width + x) as usize] += 1;
                    }
                }
                for side in Side::ALL {
                    if let Some(other) = grid.neighbour(tile, side) {
                        prop_assert_eq!(grid.neighbour(other, side.opposite()), Some(tile));
                        let neighbour = grid.area(other);
                        match side {
                            Side::North | Side::South => prop_assert_eq!(neighbour.width, area.width),
                            Side::East | Side::West => prop_assert_eq!(neighbour.height, area.height),
                        }
                    }
                }
            }
            prop_assert!(covered.iter().all(|&times| times == 1));
        }
    }
}
