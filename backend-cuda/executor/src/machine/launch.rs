//! Launches: a kernel, a grid, and its threads.

use super::Machine;
use super::block::Block;
use crate::error::Error;
use crate::exec::thread::{State, Thread};
use crate::exec::{POISON, Window};

/// Extent of a grid in blocks or of a block in threads: x, y, z.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dim(pub [u32; 3]);

impl From<u32> for Dim {
    fn from(x: u32) -> Self {
        Self([x, 1, 1])
    }
}

impl From<(u32, u32)> for Dim {
    fn from((x, y): (u32, u32)) -> Self {
        Self([x, y, 1])
    }
}

impl From<(u32, u32, u32)> for Dim {
    fn from((x, y, z): (u32, u32, u32)) -> Self {
        Self([x, y, z])
    }
}

impl Dim {
    fn volume(self) -> u64 {
        self.0.iter().map(|n| u64::from(*n)).product()
    }

    fn at(self, index: u64) -> [u32; 3] {
        let [x, y, _] = self.0.map(u64::from);
        [index % x, index / x % y, index / (x * y)].map(|n| n as u32)
    }
}

/// Shape of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaunchConfig {
    /// Extent of the grid in blocks.
    pub grid: Dim,
    /// Extent of a block in threads, 1024 of them at most.
    pub block: Dim,
    /// Bytes of dynamic shared memory for each block.
    pub shared_bytes: u32,
    /// The threads stand for threads of the host: to the race detector, only the system scope includes them. So the
    /// host's half of a protocol can be checked as thoroughly as the device's, if it is compiled to PTX as well.
    pub plays_host: bool,
}

impl LaunchConfig {
    /// A launch of this shape, on the device, without dynamic shared memory.
    pub fn new(grid: impl Into<Dim>, block: impl Into<Dim>) -> Self {
        Self { grid: grid.into(), block: block.into(), shared_bytes: 0, plays_host: false }
    }
}

/// One argument of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arg {
    /// A 32-bit value.
    U32(u32),
    /// A 64-bit value or an address.
    U64(u64),
    /// A structure, as its bytes.
    Bytes(Vec<u8>),
}

impl From<u32> for Arg {
    fn from(value: u32) -> Self {
        Self::U32(value)
    }
}

impl From<u64> for Arg {
    fn from(value: u64) -> Self {
        Self::U64(value)
    }
}

impl<T> From<*mut T> for Arg {
    fn from(pointer: *mut T) -> Self {
        Self::U64(pointer.expose_provenance() as u64)
    }
}

impl<T> From<*const T> for Arg {
    fn from(pointer: *const T) -> Self {
        Self::U64(pointer.expose_provenance() as u64)
    }
}

impl Arg {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::U32(value) => value.to_le_bytes().to_vec(),
            Self::U64(value) => value.to_le_bytes().to_vec(),
            Self::Bytes(bytes) => bytes.clone(),
        }
    }
}

/// A launch of one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LaunchId(pub(super) u32);

#[derive(Debug)]
pub(super) struct Launch {
    pub(super) threads: Vec<u32>,
    blocks: Vec<u32>,
    /// Threads that have not ended.
    pub(super) live: usize,
    params: u64,
    joined: bool,
}

impl Machine {
    /// Starts a kernel. All its blocks are resident at once, as in a cooperative launch, and run beside those of other
    /// launches. What the host has done so far happens before everything that the kernel does.
    ///
    /// # Errors
    /// [`Error::Launch`] if there is no such kernel, the arguments do not fit, or the shape is impossible.
    pub fn launch(
        &mut self,
        kernel: &str,
        grid: impl Into<Dim>,
        block: impl Into<Dim>,
        args: &[Arg],
    ) -> Result<LaunchId, Error> {
        self.launch_with(kernel, LaunchConfig::new(grid, block), args)
    }

    /// As [`launch`](Self::launch), with everything that can be configured.
    ///
    /// # Errors
    /// As for `launch`.
    pub fn launch_with(&mut self, kernel: &str, config: LaunchConfig, args: &[Arg]) -> Result<LaunchId, Error> {
        let refuse = |reason: String| Err(Error::Launch { reason });
        let Some(number) = self.functions.iter().position(|f| f.is_entry && f.name == kernel) else {
            return refuse(format!("there is no kernel {kernel:?}"));
        };
        let function = &self.functions[number];
        let args: Vec<Vec<u8>> = args.iter().map(Arg::bytes).collect();
        let wanted: Vec<usize> = function.params.iter().map(|p| p.size as usize).collect();
        let given: Vec<usize> = args.iter().map(Vec::len).collect();
        if wanted != given {
            return refuse(format!("{kernel:?} takes arguments of {wanted:?} bytes, not of {given:?}"));
        }
        let (blocks, threads) = (config.grid.volume(), config.block.volume());
        if threads == 0 || threads > 1024 || blocks == 0 || blocks * threads > 1 << 20 {
            return refuse(format!("{blocks} blocks of {threads} threads"));
        }
        let shared = self.modules[function.module as usize].shared_bytes as usize + config.shared_bytes as usize;
        if shared as u64 > Window::BYTES {
            return refuse(format!("{shared} bytes of shared memory"));
        }
        let mut params = vec![0; function.param_bytes as usize];
        for (place, bytes) in function.params.iter().zip(&args) {
            params[place.offset as usize..][..bytes.len()].copy_from_slice(bytes);
        }
        let params_at = self.memory.allocate(params.len(), 16, false, "parameters");
        for (at, byte) in (params_at..).zip(&params) {
            crate::memory::store(at, 1, u64::from(*byte), crate::Order::Relaxed);
        }
        let id = self.launches.len() as u32;
        let mut launch = Launch { threads: Vec::new(), blocks: Vec::new(), live: 0, params: params_at, joined: false };
        for index in 0..blocks {
            let block = Block {
                index: config.grid.at(index),
                grid_dim: config.grid.0,
                block_dim: config.block.0,
                shared: vec![POISON; shared],
                dynamic_shared: config.shared_bytes,
                threads: Vec::new(),
                barriers: Default::default(),
            };
            let place = match self.free_blocks.pop() {
                Some(place) => {
                    self.blocks[place as usize] = block;
                    place
                }
                None => {
                    self.blocks.push(block);
                    (self.blocks.len() - 1) as u32
                }
            };
            launch.blocks.push(place);
            for linear in 0..threads {
                let index = config.block.at(linear);
                let thread = self.start(number as u32, id, place, index, linear as u32, &params);
                self.threads[thread as usize].launch_params = params_at;
                if let Some(detector) = &mut self.detector {
                    detector.start(thread + 1, (!config.plays_host).then_some(place));
                }
                self.blocks[place as usize].threads.push(thread);
                launch.threads.push(thread);
                self.ready.push(thread);
            }
        }
        launch.live = launch.threads.len();
        self.launches.push(launch);
        if let Some(detector) = &mut self.detector {
            detector.host_released();
        }
        Ok(LaunchId(id))
    }

    fn start(&mut self, function: u32, launch: u32, block: u32, index: [u32; 3], linear: u32, params: &[u8]) -> u32 {
        let place = self.free_threads.pop().unwrap_or(self.threads.len() as u32);
        let mut thread = Thread {
            // The host is agent 0.
            agent: place + 1,
            launch,
            block,
            index,
            linear,
            state: State::Ready,
            function,
            pc: 0,
            slots: Vec::new(),
            slot_base: 0,
            params: Vec::new(),
            param_base: 0,
            local: Vec::new(),
            local_base: 0,
            frames: Vec::new(),
            carry: false,
            launch_params: 0,
            polled: (u32::MAX, 0, 0),
            polls: false,
        };
        thread.enter(function, &self.functions[function as usize]);
        thread.params.copy_from_slice(params);
        match self.threads.get_mut(place as usize) {
            Some(free) => *free = thread,
            None => self.threads.push(thread),
        }
        place
    }

    /// Whether all threads of a launch have ended.
    #[must_use]
    pub fn is_finished(&self, launch: LaunchId) -> bool {
        self.launches.get(launch.0 as usize).is_none_or(|l| l.live == 0)
    }

    /// Makes what a finished launch did visible to the host, as waiting for its stream would, and frees what it used.
    /// `false` if it has not ended.
    pub fn join(&mut self, id: LaunchId) -> bool {
        let Some(launch) = self.launches.get_mut(id.0 as usize) else { return true };
        if launch.live > 0 || launch.joined {
            return launch.joined;
        }
        launch.joined = true;
        let (threads, blocks) = (core::mem::take(&mut launch.threads), core::mem::take(&mut launch.blocks));
        let params = launch.params;
        if let Some(detector) = &mut self.detector {
            for thread in &threads {
                detector.joined(self.threads[*thread as usize].agent);
            }
            for block in &blocks {
                detector.forget(Window::shared(*block).start(), Window::BYTES);
            }
        }
        self.memory.release(params);
        self.free_threads.extend(threads);
        self.free_blocks.extend(blocks);
        true
    }
}
