//! Attaching: what bytes are a fabric, what is wrong with those that are not, and that it does not matter where they
//! lie.
#![allow(clippy::incompatible_msrv, reason = "the declared version is that of the library; tests use the newest")]

mod common;

use common::Manual;
use core::mem::offset_of;
use k2k_core::fabric::{AttachError, Geometry, LAYOUT_VERSION, MAGIC};
use k2k_core::sync::Gpu;
use k2k_core::{Command, Config, DeliveryStatus, Fabric, Message, Priority, ProcessDomain, Registration};

type Small = Fabric<3, 4, 64>;

/// Bytes that start at a multiple of 128, with room to start elsewhere.
#[repr(C, align(128))]
#[derive(Clone)]
struct Bytes([u8; size_of::<Small>() + 256]);

impl Bytes {
    fn zeroed() -> Box<Self> {
        // SAFETY: an array of bytes.
        unsafe { Box::<Self>::new_zeroed().assume_init() }
    }

    fn in_use() -> Box<Self> {
        let mut bytes = Self::zeroed();
        Small::attach(bytes.fabric(), &Config::default()).unwrap();
        bytes
    }

    fn fabric(&mut self) -> &mut [u8] {
        &mut self.0[..size_of::<Small>()]
    }

    fn set(&mut self, at: usize, value: &[u8]) {
        self.0[at..at + value.len()].copy_from_slice(value);
    }

    fn error(&mut self) -> AttachError {
        Small::attach(self.fabric(), &Config::default()).unwrap_err()
    }
}

/// Where the header's words stand, as every side must have them.
#[derive(Clone, Copy)]
#[repr(C)]
#[allow(dead_code, reason = "for its offsets")]
struct Header {
    magic: u64,
    version: u32,
    kernels: u32,
    slots: u32,
    payload: u32,
    size: u64,
    delivery_timeout_ns: u64,
    max_clock_offset_ns: u64,
    hop_limit: u32,
    switches: u32,
    domain: [u64; 2],
    next_index: u32,
    _zero: u32,
    clock: u64,
    grace_ns: u64,
}

#[test]
fn zeroed_bytes_become_a_fabric_and_used_bytes_are_found() {
    let mut bytes = Bytes::zeroed();
    let platform = Manual::at(1);
    let first = Small::attach(bytes.fabric(), &Config::default()).unwrap();
    assert_eq!(first.kernels().count(), 0);
    core::mem::forget(first.register(&Registration::new("stays").unwrap(), &platform).unwrap());
    let again = Small::attach(bytes.fabric(), &Config::default()).unwrap();
    assert_eq!(again.kernels().map(|(_, name)| name.to_string()).collect::<Vec<_>>(), ["stays"]);
    assert_eq!(bytes.0[..8], MAGIC.to_le_bytes());
}

#[test]
fn opening_writes_nothing_and_sets_nothing_up() {
    let mut bytes = Bytes::zeroed();
    let open = |bytes: &mut Bytes| {
        let bytes = bytes.fabric();
        // SAFETY: the bytes are lent to this closure alone.
        unsafe { Small::open_raw(bytes.as_mut_ptr(), bytes.len()) }.map(|fabric| fabric.config())
    };
    assert_eq!(open(&mut bytes), Err(AttachError::Empty));
    assert!(bytes.0.iter().all(|byte| *byte == 0));
    assert!(AttachError::Empty.to_string().contains("opening does not create one"));
    let mine = Config { hop_limit: 9, ..Config::default() };
    Small::attach(bytes.fabric(), &mine).unwrap();
    let before = bytes.clone();
    assert_eq!(open(&mut bytes), Ok(mine));
    assert!(bytes.0 == before.0);
    bytes.set(0, b"another file");
    assert!(matches!(open(&mut bytes), Err(AttachError::Magic { .. })));
}

#[test]
fn the_first_to_attach_decides_the_configuration() {
    let mut bytes = Bytes::zeroed();
    let domain = ProcessDomain { boot: 10, namespace: 11 };
    let mine = Config {
        delivery_timeout_ns: 7,
        max_clock_offset_ns: 8,
        hop_limit: 9,
        grace_ns: 10,
        high_share: 11,
        tracing: true,
        latency: true,
        domain,
        clock: 0,
    };
    assert_eq!(Small::attach(bytes.fabric(), &mine).unwrap().config(), mine);
    assert_eq!(Small::attach(bytes.fabric(), &Config::default()).unwrap().config(), mine);
}

#[test]
fn a_fabric_on_another_clock_is_refused_with_both_clocks() {
    let mut bytes = Bytes::zeroed();
    let on = |clock| Config { clock, ..Config::DEFAULT };
    Small::attach(bytes.fabric(), &on(0xaa)).unwrap();
    let error = Small::attach(bytes.fabric(), &on(0xbb)).unwrap_err();
    assert_eq!(error, AttachError::Clock { found: 0xaa, expected: 0xbb });
    let message = error.to_string();
    assert!(message.contains("00aa") && message.contains("00bb") && message.contains("create it anew"), "{message}");
    // Sides that do not say their clock are let in.
    assert_eq!(Small::attach(bytes.fabric(), &on(0)).unwrap().config().clock, 0xaa);
    let fabric = Small::attach(bytes.fabric(), &on(0xaa)).unwrap();
    assert_eq!((fabric.check_clock(0xaa), fabric.check_clock(0)), (Ok(()), Ok(())));
    assert_eq!(fabric.check_clock(1), Err(AttachError::Clock { found: 0xaa, expected: 1 }));
    let mut unnamed = Bytes::zeroed();
    Small::attach(unnamed.fabric(), &on(0)).unwrap();
    assert!(Small::attach(unnamed.fabric(), &on(0xbb)).is_ok());
}

#[test]
fn a_configured_hop_limit_of_zero_still_lets_messages_make_one_hop() {
    let mut bytes = Bytes::zeroed();
    let config = Config { hop_limit: 0, ..Config::default() };
    assert_eq!(Small::attach(bytes.fabric(), &config).unwrap().config().hop_limit, 1);
}

#[test]
fn too_few_bytes_are_refused_with_both_sizes() {
    let mut bytes = Bytes::zeroed();
    let expected = size_of::<Small>();
    for found in [0, 1, 127, expected - 1] {
        let error = Small::attach(&mut bytes.0[..found], &Config::default()).unwrap_err();
        assert_eq!(error, AttachError::TooSmall { found, expected });
        assert!(error.to_string().contains(&expected.to_string()));
    }
    assert!(bytes.0.iter().all(|&byte| byte == 0), "nothing was written");
    assert!(Small::attach(&mut bytes.0, &Config::default()).is_ok(), "more than enough is fine");
}

#[test]
fn a_misaligned_address_is_refused_with_its_remainder() {
    let mut bytes = Bytes::zeroed();
    for remainder in [1, 8, 64, 127] {
        let error = Small::attach(&mut bytes.0[remainder..], &Config::default()).unwrap_err();
        assert_eq!(error, AttachError::Misaligned { remainder, expected: 128 });
        assert!(error.to_string().contains("128"));
    }
    assert!(Small::attach(&mut bytes.0[128..], &Config::default()).is_ok());
}

#[test]
fn other_bytes_are_refused_by_their_magic() {
    let mut bytes = Bytes::in_use();
    bytes.set(offset_of!(Header, magic), b"\x7fELF\x02\x01\x01\0");
    let found = u64::from_le_bytes(*b"\x7fELF\x02\x01\x01\0");
    let error = bytes.error();
    assert_eq!(error, AttachError::Magic { found });
    assert!(error.to_string().contains("0x"));
}

#[test]
fn a_fabric_that_someone_began_and_never_finished_is_refused_in_the_end() {
    let mut bytes = Bytes::zeroed();
    bytes.set(offset_of!(Header, magic), b"K2Kbegun");
    assert_eq!(bytes.error(), AttachError::Unfinished);
}

#[test]
fn another_layout_version_is_refused_with_both_versions() {
    let mut bytes = Bytes::in_use();
    bytes.set(offset_of!(Header, version), &7u32.to_le_bytes());
    assert_eq!(bytes.error(), AttachError::Version { found: 7, expected: LAYOUT_VERSION });
}

#[test]
fn each_part_of_another_shape_is_named() {
    let expected = Small::GEOMETRY;
    assert_eq!(expected, Geometry { kernels: 3, slots: 4, payload: 64, size: size_of::<Small>() as u64 });
    let cases = [
        (offset_of!(Header, kernels), Geometry { kernels: 5, ..expected }, "KERNELS is 5, this program has 3"),
        (offset_of!(Header, slots), Geometry { slots: 5, ..expected }, "SLOTS is 5, this program has 4"),
        (offset_of!(Header, payload), Geometry { payload: 5, ..expected }, "PAYLOAD is 5, this program has 64"),
    ];
    for (at, found, words) in cases {
        let mut bytes = Bytes::in_use();
        bytes.set(at, &5u32.to_le_bytes());
        let error = bytes.error();
        assert_eq!(error, AttachError::Geometry { found, expected });
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(error.to_string().matches(" is ").count(), 1, "only what differs is named: {error}");
    }
    let mut bytes = Bytes::in_use();
    bytes.set(offset_of!(Header, size), &5u64.to_le_bytes());
    let error = bytes.error();
    assert_eq!(error, AttachError::Geometry { found: Geometry { size: 5, ..expected }, expected });
    assert!(error.to_string().contains("size is 5"));
}

#[test]
fn a_fabric_of_another_type_is_refused() {
    let mut bytes = Bytes::zeroed();
    Fabric::<2, 4, 64>::attach(&mut bytes.0, &Config::default()).unwrap();
    assert!(matches!(bytes.error(), AttachError::Geometry { found: Geometry { kernels: 2, .. }, .. }));
}

#[test]
fn a_fabric_works_on_at_another_address() {
    let platform = Manual::at(1_000);
    let mut bytes = Bytes::zeroed();
    let config = Config { tracing: true, ..Config::default() };
    let fabric = Small::attach(bytes.fabric(), &config).unwrap();
    let [mut a, mut b, c] = ["a", "b", "c"].map(|name| {
        let who = Registration::new(name).unwrap();
        fabric.register(&who, &platform).unwrap()
    });
    let (a_id, b_id, c_id) = (a.id(), b.id(), c.id());
    fabric.set_route(a_id, c_id, b_id).unwrap();
    let message = |text: &str| Message::from_bytes(1, text.as_bytes()).unwrap();
    while b.send(c_id, &message("in c's inbox")).is_ok() {}
    let deferred = a.send(c_id, &message("in b's store")).unwrap();
    assert_eq!(b.poll(), 1);
    let high = a.send_priority(b_id, &message("high"), Priority::High).unwrap();
    let normal = a.send(b_id, &message("normal")).unwrap();
    let told = a.stats();
    // All owners die at once; the bytes move.
    core::mem::forget((a, b, c));
    let mut elsewhere = Bytes::zeroed();
    elsewhere.0[128..].copy_from_slice(&bytes.0[..size_of::<Small>() + 128]);
    bytes.0.fill(0xa5);

    let fabric = Small::attach(&mut elsewhere.0[128..], &Config::default()).unwrap();
    assert_eq!(fabric.config(), config);
    assert_eq!((fabric.find("b"), fabric.route(a_id, c_id)), (Some(b_id), Some(b_id)));
    // SAFETY: their owners were forgotten, in memory that is gone.
    let [mut a, mut b, mut c] = [a_id, b_id, c_id].map(|id| unsafe { fabric.take_over(id, &platform) }.unwrap());
    assert_eq!(a.stats(), told);
    let texts: Vec<_> = core::iter::from_fn(|| b.try_receive()).map(|m| m.payload().to_vec()).collect();
    assert_eq!(texts, [&b"high"[..], b"normal"]);
    let mut last = Vec::new();
    while let Some(message) = c.try_receive() {
        last = message.payload().to_vec();
        b.poll();
    }
    assert_eq!(last, b"in b's store");
    for id in [deferred, high, normal] {
        assert_eq!(a.receipt(id).unwrap().status, DeliveryStatus::Delivered);
    }
    assert_eq!(fabric.pending(), 0);
    assert!(fabric.trace(a_id).unwrap().read().any(|entry| entry.id == deferred));
}

/// Anyone may look on at a GPU's fabric; that only device code may register in it is a doctest of `sync::ReachesHere`.
#[test]
fn a_fabric_of_another_scope_has_the_same_bytes_and_can_be_looked_at() {
    type OfGpu = Fabric<3, 4, 64, Gpu>;
    assert_eq!((size_of::<OfGpu>(), align_of::<OfGpu>()), (size_of::<Small>(), align_of::<Small>()));
    let platform = Manual::at(1_000);
    let mut bytes = Bytes::zeroed();
    let base = bytes.fabric().as_mut_ptr();
    let config = Config { tracing: true, ..Config::default() };
    // SAFETY: the bytes outlive both views, and are accessed through fabrics alone.
    let (fabric, seen) = unsafe {
        (
            Small::attach_raw(base, size_of::<Small>(), &config).unwrap(),
            OfGpu::attach_raw(base, size_of::<OfGpu>(), &config).unwrap(),
        )
    };
    let mut a = fabric.register(&Registration::new("a").unwrap(), &platform).unwrap();
    let mut b = fabric.register(&Registration::new("b").unwrap(), &platform).unwrap();
    let id = a.send(b.id(), &Message::new(1)).unwrap();
    assert!(b.try_receive().is_some());
    assert_eq!((seen.find("b"), seen.name(a.id()).unwrap().as_str()), (Some(b.id()), "a"));
    assert_eq!(
        (seen.stats(b.id()).unwrap().received, seen.peek_receipt(id).unwrap().status),
        (1, DeliveryStatus::Delivered)
    );
    assert_eq!(seen.trace(b.id()).unwrap().read().count(), 1);
    seen.command(b.id(), Command::Stop, &platform).unwrap();
    assert_eq!(b.command(), Command::Stop);
}
