//! Who runs next: at random from a seed, or along a recorded path.

use fastrand::Rng;

/// One choice on a path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    taken: u32,
    alternatives: u32,
}

/// A path through the tree of schedules, replayed up to its end and then continued with the first choice each time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Path {
    choices: Vec<Choice>,
    at: usize,
    preemptions_left: u32,
    current: Option<u32>,
}

impl Path {
    pub(crate) fn begin(&mut self, preemptions: u32) {
        (self.at, self.preemptions_left, self.current) = (0, preemptions, None);
    }

    /// Goes to the next path, depth first; `false` if there is none.
    pub(crate) fn advance(&mut self) -> bool {
        self.choices.truncate(self.at);
        while let Some(last) = self.choices.last_mut() {
            if last.taken + 1 < last.alternatives {
                last.taken += 1;
                return true;
            }
            self.choices.pop();
        }
        false
    }

    fn choose(&mut self, alternatives: usize) -> usize {
        if alternatives < 2 {
            return 0;
        }
        if self.at == self.choices.len() {
            self.choices.push(Choice { taken: 0, alternatives: alternatives as u32 });
        }
        self.at += 1;
        self.choices[self.at - 1].taken as usize
    }

    /// Picks one of `ready`; `yields` says that the current one waits for someone else.
    fn pick(&mut self, ready: &[u32], yields: bool) -> u32 {
        let mut order: Vec<u32> = ready.to_vec();
        order.sort_unstable();
        let current = self.current.filter(|c| order.contains(c));
        let picked = match current {
            // Taking the turn from a thread that could go on is a preemption.
            Some(current) if !yields => {
                order.retain(|t| *t != current);
                let choice = if self.preemptions_left == 0 { 0 } else { self.choose(order.len() + 1) };
                if choice == 0 {
                    current
                } else {
                    self.preemptions_left -= 1;
                    order[choice - 1]
                }
            }
            // A thread that polls hands over in turn, without a choice: otherwise there would be no end of paths.
            Some(current) => order.iter().copied().find(|t| *t > current).unwrap_or(order[0]),
            None => order[self.choose(order.len())],
        };
        self.current = Some(picked);
        picked
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Scheduler {
    Random(Rng),
    Path(Path),
}

impl Scheduler {
    /// The position in `ready` of the thread to run, which is not empty.
    pub(crate) fn pick(&mut self, ready: &[u32], yields: bool) -> usize {
        match self {
            Self::Random(random) => random.usize(..ready.len()),
            Self::Path(path) => {
                let picked = path.pick(ready, yields);
                ready.iter().position(|t| *t == picked).unwrap_or(0)
            }
        }
    }

    /// How many accesses the next turn may have: mostly few, sometimes many, so that threads overtake one another.
    pub(crate) fn burst(&mut self, most: u32) -> u32 {
        match self {
            Self::Random(random) => {
                let most = if random.usize(..16) == 0 { most.saturating_mul(8) } else { most };
                1 + random.usize(..most.max(1) as usize) as u32
            }
            Self::Path(_) => 1,
        }
    }

    pub(crate) fn coin(&mut self) -> bool {
        match self {
            Self::Random(random) => random.usize(..4) == 0,
            Self::Path(_) => false,
        }
    }
}
