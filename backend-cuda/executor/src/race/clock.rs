//! Vector clocks: one count for each agent, zero beyond the end.

pub(super) type Clock = Vec<u32>;

#[inline(always)]
pub(super) fn at(clock: &Clock, agent: u32) -> u32 {
    clock.get(agent as usize).copied().unwrap_or(0)
}

pub(super) fn join(into: &mut Clock, other: &[u32]) {
    if into.len() < other.len() {
        into.resize(other.len(), 0);
    }
    for (mine, theirs) in into.iter_mut().zip(other) {
        *mine = (*mine).max(*theirs);
    }
}

/// Begins the agent's next epoch.
pub(super) fn tick(clock: &mut Clock, agent: u32) {
    if clock.len() <= agent as usize {
        clock.resize(agent as usize + 1, 0);
    }
    clock[agent as usize] += 1;
}
