//! Tiles in one thread, stepped in any order, with a clock that is turned by hand.

use core::cell::Cell;
use k2k_core::WakeFlag;
use k2k_core::{
    Config, Context, DeliveryStatus, Endpoint, Fabric, Fixed, Idle, Kernel, KernelId, Message, Platform, Priority,
    Registration,
};
use k2k_denoise::protocol::{ABORT, FINISH, HALO, REPORT, START};
use k2k_denoise::{Grid, Outcome, Params, Report, Shape, Side, Start, StorageError, Tile, diffuse_reference};
use proptest::prelude::*;

const PATIENCE_NS: u64 = 1_000_000;
const TIMEOUT_NS: u64 = 10_000_000;

#[derive(Debug, Default)]
struct Clock {
    now_ns: Cell<u64>,
}

impl Platform for Clock {
    fn now_ns(&self) -> u64 {
        self.now_ns.get()
    }

    fn wake(&self, _: &WakeFlag) {}
}

fn fabric<const K: usize, const S: usize, const P: usize>() -> Box<Fabric<K, S, P>> {
    // SAFETY: all zero is a valid, idle fabric.
    let fabric = unsafe { Box::<Fabric<K, S, P>>::new_zeroed().assume_init() };
    fabric.init(&Config { delivery_timeout_ns: TIMEOUT_NS, ..Config::default() }).expect("zeroed memory is idle");
    fabric
}

fn register<'f, const K: usize, const S: usize, const P: usize>(
    fabric: &'f Fabric<K, S, P>,
    clock: &'f Clock,
    name: &str,
) -> Endpoint<'f, &'f Clock, Fixed<K, S, P>> {
    fabric.register(&Registration::new(name).expect("a short name"), clock).expect("a free index")
}

/// A tile and its endpoint, as `k2k_core::run` would hold them.
struct Running<'f, const K: usize, const S: usize, const P: usize> {
    endpoint: Endpoint<'f, &'f Clock, Fixed<K, S, P>>,
    tile: Tile<Vec<f32>>,
}

impl<'f, const K: usize, const S: usize, const P: usize> Running<'f, K, S, P> {
    fn new(endpoint: Endpoint<'f, &'f Clock, Fixed<K, S, P>>, shape: Shape) -> Self {
        Self { endpoint, tile: Tile::new(vec![0.0; shape.storage_len()], shape).expect("the right length") }
    }

    /// One pass of the run loop; `true` if it did something.
    fn pass(&mut self) -> bool {
        if self.endpoint.is_stopping() {
            return false;
        }
        match self.endpoint.try_receive() {
            Some(message) => {
                self.tile.on_message(&mut self.endpoint, &message);
                true
            }
            None => self.tile.on_idle(&mut self.endpoint) == Idle::Again,
        }
    }

    fn settle(&mut self) {
        while self.pass() {}
    }
}

fn start(neighbours: [KernelId; 4], iterations: u32) -> Start {
    Start {
        patience_ns: PATIENCE_NS,
        neighbours: neighbours.map(KernelId::raw),
        iterations,
        kappa: 20.0,
        lambda: 0.2,
        reserved: 0,
    }
}

fn halo(side: Side, iteration: u32, first: u32, values: &[f32]) -> Message<64> {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    Message::from_bytes(HALO, &bytes)
        .expect("at most 16 values")
        .with_flags(side as u8)
        .with_correlation_id(u64::from(iteration) << 32 | u64::from(first))
}

/// Runs a grid of tiles, `order` saying whose turn it is, and returns what the picture has become.
fn run_grid<const K: usize, const S: usize>(
    picture: &[f32],
    width: u32,
    height: u32,
    channels: u32,
    tiles: u32,
    params: &Params,
    mut order: impl FnMut(usize) -> usize,
) -> Vec<f32> {
    let clock = Clock { now_ns: Cell::new(1) };
    let fabric = fabric::<K, S, 64>();
    let grid = Grid::new(width, height, tiles).expect("a picture");
    let mut controller = register(&fabric, &clock, "controller");
    let plane = (width * height) as usize;
    let mut running: Vec<Running<'_, K, S, 64>> = (0..grid.len())
        .map(|i| {
            let area = grid.area(i);
            let shape = Shape::new(area.width, area.height, channels).expect("a shape");
            let mut storage = vec![f32::NAN; shape.storage_len()];
            let first = (area.y * width + area.x) as usize;
            for c in 0..channels as usize {
                shape.load(&mut storage, c, &picture[c * plane + first..], width as usize);
            }
            let endpoint = register(&fabric, &clock, &format!("tile-{i}"));
            Running { endpoint, tile: Tile::new(storage, shape).expect("the right length") }
        })
        .collect();
    let ids: Vec<KernelId> = running.iter().map(|r| r.endpoint.id()).collect();
    for i in 0..grid.len() {
        let neighbours =
            Side::ALL.map(|side| grid.neighbour(i, side).map_or(KernelId::NONE, |tile| ids[tile as usize]));
        let start = Start {
            iterations: params.iterations(),
            kappa: params.kappa(),
            lambda: params.lambda(),
            ..start(neighbours, 0)
        };
        controller.send(ids[i as usize], &Message::from_value(START, &start)).expect("an empty shard");
        // Some tiles start long before others.
        for _ in 0..20 {
            running[order(ids.len())].pass();
        }
    }
    let mut reports = 0;
    while reports < ids.len() {
        running[order(ids.len())].pass();
        if let Some(message) = controller.try_receive() {
            assert_eq!(message.header.kind, REPORT);
            let report = message.value::<Report>().expect("a report");
            assert_eq!((report.outcome(), report.iterations), (Some(Outcome::Done), params.iterations()));
            reports += 1;
        }
    }
    for (id, running) in ids.iter().zip(&mut running) {
        controller.send(*id, &Message::new(FINISH)).expect("room");
        running.settle();
        assert!(running.endpoint.is_stopping());
    }
    let stats = fabric.total_stats();
    assert_eq!((stats.unaccounted(), stats.failed(), stats.corrupt), (0, 0, 0));
    let mut result = vec![f32::NAN; picture.len()];
    for (i, running) in (0..).zip(running) {
        let area = grid.area(i);
        let shape = Shape::new(area.width, area.height, channels).expect("a shape");
        let first = (area.y * width + area.x) as usize;
        let storage = running.tile.into_storage();
        for c in 0..channels as usize {
            shape.unload(&storage, params.iterations(), c, &mut result[c * plane + first..], width as usize);
        }
    }
    result
}

fn reference(picture: &[f32], width: u32, channels: u32, params: &Params) -> Vec<f32> {
    let mut result = picture.to_vec();
    for plane in result.chunks_mut(picture.len() / channels as usize) {
        let mut scratch = plane.to_vec();
        diffuse_reference(plane, &mut scratch, width as usize, params);
    }
    result
}

fn bits(picture: &[f32]) -> Vec<u32> {
    picture.iter().map(|v| v.to_bits()).collect()
}

/// A small generator, so that the order of turns follows from one number.
fn turns(mut seed: u64) -> impl FnMut(usize) -> usize {
    move |of| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % of
    }
}

#[test]
fn a_border_longer_than_a_message_goes_through_a_single_slot() {
    let params = Params::new(6, 20.0, 0.2).expect("in range");
    let picture: Vec<f32> = (0..3 * 90 * 40).map(|i| (i * 7919 % 256) as f32).collect();
    let result = run_grid::<16, 1>(&picture, 90, 40, 3, 7, &params, turns(1));
    assert_eq!(bits(&result), bits(&reference(&picture, 90, 3, &params)));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn any_cut_in_any_order_equals_the_reference(
        width in 1u32..18,
        height in 1u32..18,
        channels in 1u32..4,
        tiles in 1u32..13,
        iterations in 0u32..6,
        seed: u64,
    ) {
        let params = Params::new(iterations, 15.0, 0.25).expect("in range");
        let mut noise = turns(!seed);
        let picture: Vec<f32> = (0..width * height * channels).map(|_| noise(256) as f32).collect();
        let result = run_grid::<16, 2>(&picture, width, height, channels, tiles, &params, turns(seed));
        prop_assert_eq!(bits(&result), bits(&reference(&picture, width, channels, &params)));
    }
}

/// A controller, a neighbour played by the test, and a tile of 2 × 2 pixels that has it to the east.
struct Pair<'f> {
    controller: Endpoint<'f, &'f Clock, Fixed<4, 2, 64>>,
    neighbour: Endpoint<'f, &'f Clock, Fixed<4, 2, 64>>,
    running: Running<'f, 4, 2, 64>,
}

impl<'f> Pair<'f> {
    fn new(fabric: &'f Fabric<4, 2, 64>, clock: &'f Clock) -> Self {
        clock.now_ns.set(1);
        let shape = Shape::new(2, 2, 1).expect("a shape");
        Self {
            controller: register(fabric, clock, "controller"),
            neighbour: register(fabric, clock, "neighbour"),
            running: Running::new(register(fabric, clock, "tile"), shape),
        }
    }

    fn start(&mut self, iterations: u32) {
        let start = start([KernelId::NONE, self.neighbour.id(), KernelId::NONE, KernelId::NONE], iterations);
        self.controller.send(self.running.endpoint.id(), &Message::from_value(START, &start)).expect("room");
        self.running.settle();
    }

    fn send(&mut self, message: &Message<64>) {
        self.neighbour.send(self.running.endpoint.id(), message).expect("room");
        self.running.settle();
    }

    fn outcome(&mut self) -> Option<Outcome> {
        let outcome = self.controller.try_receive()?.value::<Report>().expect("a report").outcome();
        assert_eq!(outcome, self.running.tile.outcome());
        outcome
    }

    /// The tile has failed like this, has told its neighbour, and has stopped.
    fn assert_failed(&mut self, outcome: Outcome) {
        assert_eq!(self.outcome(), Some(outcome));
        let kinds: Vec<u32> = core::iter::from_fn(|| self.neighbour.try_receive()).map(|m| m.header.kind).collect();
        assert_eq!(kinds.last(), Some(&ABORT), "{kinds:?}");
        assert!(self.running.endpoint.is_stopping());
    }
}

#[test]
fn a_halo_may_come_before_start_and_one_iteration_ahead() {
    let (fabric, clock) = (fabric(), Clock::default());
    let mut pair = Pair::new(&fabric, &clock);
    pair.send(&halo(Side::East, 0, 0, &[1.0, 2.0]));
    pair.start(2);
    assert_eq!(pair.running.tile.iteration(), 1);
    let mine = pair.neighbour.try_receive().expect("its halo");
    assert_eq!((mine.header.flags, mine.header.correlation_id), (Side::West as u8, 0));
    // In two parts, as a long one would.
    pair.send(&halo(Side::East, 1, 0, &[1.0]));
    assert_eq!(pair.running.tile.iteration(), 1);
    pair.send(&halo(Side::East, 1, 1, &[2.0]));
    assert_eq!((pair.running.tile.iteration(), pair.outcome()), (2, None));
    // Done only when its last halo has been delivered.
    assert!(pair.neighbour.try_receive().is_some());
    pair.running.settle();
    assert_eq!(pair.outcome(), Some(Outcome::Done));
    assert!(!pair.running.endpoint.is_stopping());
}

#[test]
fn halos_that_have_no_place_fail_the_tile() {
    let cases = [
        ("two ahead", halo(Side::East, 2, 0, &[1.0])),
        ("after the last", halo(Side::East, 9, 0, &[1.0])),
        ("a gap", halo(Side::East, 0, 1, &[1.0])),
        ("too long", halo(Side::East, 0, 0, &[1.0; 3])),
        ("no such side", halo(Side::East, 0, 0, &[1.0]).with_flags(4)),
        ("half a value", Message::from_bytes(HALO, &[0; 6]).expect("6 bytes").with_flags(Side::East as u8)),
    ];
    for (what, message) in cases {
        let (fabric, clock) = (fabric(), Clock::default());
        let mut pair = Pair::new(&fabric, &clock);
        pair.start(9);
        pair.send(&message);
        assert_eq!(pair.running.tile.outcome(), Some(Outcome::BadHalo), "{what}");
        pair.assert_failed(Outcome::BadHalo);
    }
}

#[test]
fn strangers_change_nothing() {
    let (fabric, clock) = (fabric(), Clock::default());
    let mut pair = Pair::new(&fabric, &clock);
    pair.start(1);
    let mut stranger = register(&fabric, &clock, "stranger");
    let tile = pair.running.endpoint.id();
    for message in [
        halo(Side::East, 0, 0, &[1.0, 2.0]),
        Message::new(ABORT),
        Message::new(FINISH),
        Message::from_value(START, &start([KernelId::NONE; 4], 7)),
        Message::new(99),
    ] {
        stranger.send_priority(tile, &message, Priority::High).expect("room");
        pair.running.settle();
    }
    assert_eq!((pair.running.tile.outcome(), pair.running.tile.iteration()), (None, 0));
    assert!(!pair.running.endpoint.is_stopping());
}

#[test]
fn a_start_that_cannot_be_is_refused() {
    let cases = [
        Start { lambda: 0.3, ..start([KernelId::NONE; 4], 1) },
        Start { kappa: f32::NAN, ..start([KernelId::NONE; 4], 1) },
    ];
    for bad in cases {
        let (fabric, clock) = (fabric(), Clock::default());
        let mut pair = Pair::new(&fabric, &clock);
        pair.controller.send(pair.running.endpoint.id(), &Message::from_value(START, &bad)).expect("room");
        pair.running.settle();
        assert_eq!(pair.outcome(), Some(Outcome::BadStart));
        assert!(pair.running.endpoint.is_stopping());
    }
    // Another neighbour than the one that has already written, and a second START.
    let (fabric_a, fabric_b, clock) = (fabric(), fabric(), Clock::default());
    let mut pair = Pair::new(&fabric_a, &clock);
    pair.send(&halo(Side::North, 0, 0, &[1.0, 2.0]));
    pair.start(1);
    pair.assert_failed(Outcome::BadStart);
    let mut pair = Pair::new(&fabric_b, &clock);
    pair.start(1);
    pair.start(1);
    pair.assert_failed(Outcome::BadStart);
}

#[test]
fn silence_ends_with_the_patience() {
    let (fabric, clock) = (fabric(), Clock::default());
    let mut pair = Pair::new(&fabric, &clock);
    pair.start(1);
    clock.now_ns.set(1 + PATIENCE_NS);
    pair.running.settle();
    assert_eq!(pair.running.tile.outcome(), None);
    clock.now_ns.set(2 + PATIENCE_NS);
    pair.running.settle();
    pair.running.settle();
    pair.assert_failed(Outcome::Stalled);
}

#[test]
fn a_neighbour_that_fails_or_leaves_ends_the_job() {
    let (fabric_a, fabric_b, clock) = (fabric(), fabric(), Clock::default());
    let mut pair = Pair::new(&fabric_a, &clock);
    pair.start(1);
    pair.send(&Message::new(ABORT));
    pair.assert_failed(Outcome::NeighbourFailed);

    let mut pair = Pair::new(&fabric_b, &clock);
    pair.start(1);
    drop(pair.neighbour);
    pair.running.settle();
    let report = pair.controller.try_receive().expect("a report").value::<Report>().expect("a report");
    assert_eq!(report.outcome(), Some(Outcome::Undelivered(DeliveryStatus::NotFound)));
    assert!(pair.running.endpoint.is_stopping());
}

#[test]
fn a_halo_that_times_out_is_noticed_by_its_receipt() {
    let (fabric, clock) = (fabric(), Clock::default());
    let mut pair = Pair::new(&fabric, &clock);
    pair.start(2);
    clock.now_ns.set(TIMEOUT_NS + k2k_core::CLOCK_MARGIN_NS + 2);
    pair.running.settle();
    pair.assert_failed(Outcome::Undelivered(DeliveryStatus::Timeout));
}

#[test]
fn a_failed_tile_whose_neighbour_does_not_listen_stops_all_the_same() {
    let (fabric, clock) = (fabric(), Clock::default());
    let mut pair = Pair::new(&fabric, &clock);
    pair.start(9);
    // The second slot of the shard to the neighbour, so that ABORT finds no room.
    let neighbour = pair.neighbour.id();
    pair.running.endpoint.send(neighbour, &Message::new(99)).expect("the second slot");
    pair.send(&halo(Side::East, 2, 0, &[1.0]));
    assert!(!pair.running.endpoint.is_stopping());
    clock.now_ns.set(2 + PATIENCE_NS);
    pair.running.settle();
    assert!(pair.running.endpoint.is_stopping());
    assert_eq!(pair.running.tile.outcome(), Some(Outcome::BadHalo));
}

#[test]
fn a_tile_that_is_stopped_says_so() {
    let (fabric, clock) = (fabric(), Clock::default());
    let mut pair = Pair::new(&fabric, &clock);
    pair.start(1);
    Context::stop(&mut pair.running.endpoint);
    Kernel::<64>::on_stop(&mut pair.running.tile, &mut pair.running.endpoint);
    assert_eq!(pair.running.tile.outcome(), Some(Outcome::Stopped));
}

#[test]
fn storage_of_the_wrong_length_is_refused() {
    let shape = Shape::new(2, 2, 1).expect("a shape");
    assert_eq!(Tile::new([0.0; 31], shape).map(|_| ()), Err(StorageError { found: 31, expected: 32 }));
}
