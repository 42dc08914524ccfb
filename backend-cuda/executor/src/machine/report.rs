//! Names for threads and lines, when something has gone wrong.

use super::Machine;
use crate::error::{Error, Fault, FaultKind, Place, ThreadReport, Who};
use crate::exec::Halt;
use crate::exec::thread::State;
use crate::memory::Region;
use crate::op::Order;
use crate::race::{Found, HOST, Party, Race, Site};

impl Machine {
    fn who(&self, number: u32) -> Who {
        let thread = &self.threads[number as usize];
        // The kernel is the outermost function.
        let kernel = thread.frames.first().map_or(thread.function, |frame| frame.function);
        Who::Thread {
            launch: thread.launch,
            kernel: self.functions[kernel as usize].name.clone(),
            block: self.blocks[thread.block as usize].index,
            thread: thread.index,
        }
    }

    fn text(&self, function: u32, line: u32) -> String {
        let source = &self.modules[self.functions[function as usize].module as usize].source;
        crate::parse::line_of(source, line).to_owned()
    }

    fn place(&self, number: u32) -> Place {
        let thread = &self.threads[number as usize];
        let code = &self.functions[thread.function as usize].code;
        // While a thread is ready, its next instruction is of interest; else the one it is in.
        let at = if thread.state == State::Ready { thread.pc } else { thread.pc.saturating_sub(1) };
        let line = code.get(at as usize).map_or(0, |i| i.line);
        Place { who: self.who(number), line, text: self.text(thread.function, line) }
    }

    pub(super) fn fault(&self, number: u32, kind: FaultKind) -> Error {
        let thread = &self.threads[number as usize];
        let line = self.functions[thread.function as usize].code[thread.pc.saturating_sub(1) as usize].line;
        let place = Place { who: self.who(number), line, text: self.text(thread.function, line) };
        Error::Fault(Box::new(Fault { kind, place }))
    }

    pub(super) fn halted(&self, number: u32, halt: Halt) -> Error {
        match halt {
            Halt::Fault(kind) => self.fault(number, kind),
            Halt::Race(found) => self.race(&found),
        }
    }

    pub(super) fn race(&self, found: &Found) -> Error {
        let Found { kind, address, bytes, earlier, later } = *found;
        let memory = if crate::exec::in_a_window(address) {
            format!("shared memory, offset {}", address & (crate::exec::Window::BYTES - 1))
        } else {
            self.memory.describe(address)
        };
        let party = |site: Site| {
            let place = if site.agent == HOST {
                Place { who: Who::Host, line: 0, text: String::new() }
            } else {
                Place { who: self.who(site.agent - 1), line: site.line, text: self.text(site.function, site.line) }
            };
            let scope = (site.order != Order::Weak).then_some(site.scope);
            Party { place, writes: site.writes, order: site.order, scope }
        };
        let (earlier, later) = (earlier.map(party), party(later));
        Error::Race(Box::new(Race { kind, address, bytes, memory, earlier, later }))
    }

    /// All threads that have not ended, and where they are.
    #[must_use]
    pub fn threads(&self) -> Vec<ThreadReport> {
        let live = |launch: &super::Launch| launch.live > 0;
        let numbers = self.launches.iter().filter(|l| live(l)).flat_map(|l| l.threads.iter().copied());
        numbers
            .filter(|number| self.threads[*number as usize].state != State::Done)
            .map(|number| ThreadReport {
                place: self.place(number),
                doing: self.threads[number as usize].state.doing(),
            })
            .collect()
    }

    /// What device code may access.
    #[must_use]
    pub fn regions(&self) -> &[Region] {
        self.memory.regions()
    }

    pub(super) fn deadlock(&self) -> Error {
        Error::Deadlock { threads: self.threads() }
    }

    pub(super) fn step_limit(&self, steps: u64) -> Error {
        Error::StepLimit { steps, threads: self.threads() }
    }
}
