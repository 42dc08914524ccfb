//! The shape of a mesh: each kernel's neighbours, and the shortest way to every kernel.

use std::collections::VecDeque;

/// How the kernels of a mesh are joined. Traffic goes between neighbours only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Topology {
    /// Each kernel to the next one: the way leads through all of them.
    Line,
    /// A line whose ends are joined: the way leads to the opposite side.
    Ring,
    /// Rows and columns, each a ring, as square as the number of kernels allows: the way leads to the opposite corner.
    Torus,
    /// All kernels round a hub: the way leads from leaf to hub to leaf.
    Star,
    /// Everyone to everyone: the way is direct.
    Full,
}

impl Topology {
    /// The fewest kernels of a mesh with this topology.
    pub(crate) const fn min_kernels(self) -> usize {
        match self {
            Self::Line | Self::Full => 2,
            Self::Ring | Self::Star => 3,
            Self::Torus => 4,
        }
    }

    /// The topology's name on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Line => "line",
            Self::Ring => "ring",
            Self::Torus => "torus",
            Self::Star => "star",
            Self::Full => "full",
        }
    }

    /// The topology in words, for a mesh of this many kernels.
    pub(crate) fn describe(self, kernels: usize) -> String {
        match self {
            Self::Line => format!("line of {kernels} kernels"),
            Self::Ring => format!("ring of {kernels} kernels"),
            Self::Torus => {
                let (rows, columns) = rows_and_columns(kernels);
                format!("torus of {rows} x {columns} kernels")
            }
            Self::Star => format!("star of a hub and {} leaves", kernels - 1),
            Self::Full => format!("{kernels} kernels, each joined to all"),
        }
    }

    /// The neighbours of kernel `at`, by index, in rising order.
    fn neighbours(self, kernels: usize, at: usize) -> Vec<usize> {
        let mut joined: Vec<usize> = match self {
            Self::Line => at.checked_sub(1).into_iter().chain((at + 1 < kernels).then_some(at + 1)).collect(),
            Self::Ring => vec![(at + 1) % kernels, (at + kernels - 1) % kernels],
            Self::Torus => {
                let (rows, columns) = rows_and_columns(kernels);
                let (row, column) = (at / columns, at % columns);
                vec![
                    (row + 1) % rows * columns + column,
                    (row + rows - 1) % rows * columns + column,
                    row * columns + (column + 1) % columns,
                    row * columns + (column + columns - 1) % columns,
                ]
            }
            Self::Star if at == HUB => (0..kernels).collect(),
            Self::Star => vec![HUB],
            Self::Full => (0..kernels).collect(),
        };
        joined.sort_unstable();
        joined.dedup();
        joined.retain(|&other| other != at);
        joined
    }
}

/// The kernel in the middle of a star. Not 0, the source of a job's data.
const HUB: usize = 1;

/// The two factors of `kernels` that lie closest together, the smaller first.
fn rows_and_columns(kernels: usize) -> (usize, usize) {
    let rows = (1..=kernels).take_while(|r| r * r <= kernels).filter(|r| kernels.is_multiple_of(*r)).last();
    let rows = rows.unwrap_or(1);
    (rows, kernels / rows)
}

/// The shortest ways through a mesh.
#[derive(Clone, Debug)]
pub(crate) struct Routes {
    kernels: usize,
    /// `next_hop[at][to]`: a neighbour of `at` that lies closer to `to`.
    next_hop: Vec<Vec<usize>>,
}

impl Routes {
    /// Computes the routes by breadth-first search from every destination. Of two ways of the same length, the way through
    /// the lower index is taken.
    pub(crate) fn new(topology: Topology, kernels: usize) -> Self {
        let neighbours: Vec<_> = (0..kernels).map(|at| topology.neighbours(kernels, at)).collect();
        let mut next_hop = vec![vec![0; kernels]; kernels];
        for to in 0..kernels {
            let mut seen = vec![false; kernels];
            seen[to] = true;
            next_hop[to][to] = to;
            let mut queue = VecDeque::from([to]);
            while let Some(here) = queue.pop_front() {
                for &there in &neighbours[here] {
                    if !seen[there] {
                        seen[there] = true;
                        next_hop[there][to] = here;
                        queue.push_back(there);
                    }
                }
            }
        }
        Self { kernels, next_hop }
    }

    /// The way from one kernel to another, both included.
    pub(crate) fn way(&self, from: usize, to: usize) -> Vec<usize> {
        let mut way = vec![from];
        let mut here = from;
        while here != to {
            here = self.next_hop[here][to];
            way.push(here);
        }
        way
    }

    /// The kernel farthest from `from`; of several, the kernel with the highest index.
    pub(crate) fn farthest(&self, from: usize) -> usize {
        (0..self.kernels).max_by_key(|&to| self.way(from, to).len()).unwrap_or(from)
    }

    /// All entries of the routing tables that are not direct: (at, destination, next hop).
    pub(crate) fn indirect(&self) -> impl Iterator<Item = (usize, usize, usize)> + '_ {
        (0..self.kernels).flat_map(move |at| {
            let entries = (0..self.kernels).map(move |to| (at, to, self.next_hop[at][to]));
            entries.filter(|&(at, to, next_hop)| at != to && next_hop != to)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    fn way(topology: Topology, kernels: usize) -> Vec<usize> {
        let routes = Routes::new(topology, kernels);
        routes.way(0, routes.farthest(0))
    }

    #[test]
    fn the_way_is_as_long_as_the_topology_allows() {
        assert_eq!(way(Topology::Line, 5), [0, 1, 2, 3, 4]);
        assert_eq!(way(Topology::Line, 2), [0, 1]);
        assert_eq!(way(Topology::Ring, 6), [0, 1, 2, 3]);
        assert_eq!(way(Topology::Ring, 5), [0, 4, 3]);
        assert_eq!(way(Topology::Star, 5), [0, 1, 4]);
        assert_eq!(way(Topology::Full, 5), [0, 4]);
        // 4 x 4: two rows and two columns away.
        assert_eq!(way(Topology::Torus, 16).len(), 5);
        assert_eq!(*way(Topology::Torus, 16).last().expect("a way has ends"), 2 * 4 + 2);
    }

    #[test]
    fn the_opposite_kernel_of_a_ring_is_found_for_even_and_odd_sizes() {
        for kernels in 3..20 {
            assert_eq!(way(Topology::Ring, kernels).len(), kernels / 2 + 1, "{kernels} kernels");
        }
    }

    #[test]
    fn a_torus_is_as_square_as_the_number_allows() {
        assert_eq!(rows_and_columns(16), (4, 4));
        assert_eq!(rows_and_columns(12), (3, 4));
        assert_eq!(rows_and_columns(7), (1, 7));
        assert_eq!(rows_and_columns(64), (8, 8));
    }

    #[test]
    fn every_way_ends_and_uses_neighbours_only() {
        for &topology in Topology::value_variants() {
            for kernels in topology.min_kernels()..=24 {
                let routes = Routes::new(topology, kernels);
                for from in 0..kernels {
                    for to in 0..kernels {
                        let way = routes.way(from, to);
                        assert!(way.len() <= kernels, "{topology:?} {kernels}: {way:?}");
                        for pair in way.windows(2) {
                            let joined = topology.neighbours(kernels, pair[0]).contains(&pair[1]);
                            assert!(joined, "{topology:?} {kernels}: {way:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn only_indirect_entries_need_a_route() {
        assert_eq!(Routes::new(Topology::Full, 6).indirect().count(), 0);
        let line: Vec<_> = Routes::new(Topology::Line, 3).indirect().collect();
        assert_eq!(line, [(0, 2, 1), (2, 0, 1)]);
    }
}
