use crate::world::{Block, Clock};
use arbitrary::{Result, Unstructured};
use k2k_core::gateway::{Gateway, GatewayConfig};
use k2k_core::{Config, Endpoint, Fabric, Fixed, Header, KernelId, LinkEnd, LinkHalf, Message, Priority, Registration};

type Domain = Fabric<6, 4, 64>;
type Half = LinkHalf<8, 64>;
const FRAMES: usize = 8;

/// Words of a half: where the remote side's begin, and its parts.
const HEARTBEAT: usize = 16;
const SLOTS: usize = 48;
const SLOT: usize = 16;

/// A gateway and two kernels at work, while the remote side of the link writes what it likes into its ring. An odd
/// first byte lets it write over the fabric as well.
pub fn gateway(input: &[u8]) {
    // Input that runs out ends the program.
    let _ = attempt(&mut Unstructured::new(input));
}

fn attempt(input: &mut Unstructured<'_>) -> Result<()> {
    let everywhere = input.arbitrary::<u8>()? % 2 == 1;
    let (memory, near, far) = (Block::<Domain>::zeroed(), Block::<Half>::zeroed(), Block::<Half>::zeroed());
    let clock = Clock::default();
    clock.advance(1_000);
    let config = Config { delivery_timeout_ns: 1_000, hop_limit: 4, tracing: true, ..Config::default() };
    let fabric = memory.fabric(&config).expect("zeroed memory is an idle fabric");
    // SAFETY: valid for as long as the blocks are, and accessed in no other way but by `poke` and `peek`.
    let [near_half, far_half] = [&near, &far].map(|half| unsafe { Half::attach_raw(half.base(), Block::<Half>::LEN) });
    let (near_half, far_half) = (near_half.expect("a whole block"), far_half.expect("a whole block"));
    near_half.set_up().expect("zeroed");
    far_half.set_up().expect("zeroed");
    let register = |name: &str| fabric.register(&Registration::new(name).expect("a short name"), &clock).ok();
    let endpoint = register("gateway").expect("a free index");
    let mut kernels = [register("a"), register("b")];
    let config = GatewayConfig { silence_ns: 10_000, grace_ns: 500, export_all: true };
    // SAFETY: no other end is opened.
    let link = unsafe { LinkEnd::open(near_half.handle(), far_half.handle()) }.expect("unused");
    let mut gateway = Gateway::new(endpoint, link, config);
    let mut tail = 0;
    while !input.is_empty() {
        match input.int_in_range(0..=15u8)? {
            0..=4 => {
                let header = frame(input, &kernels)?;
                let slot = SLOTS + tail as usize % FRAMES * SLOT;
                bytemuck::cast::<Header, [u64; 7]>(header)
                    .into_iter()
                    .enumerate()
                    .for_each(|(i, word)| near.poke(slot + 1 + i, word));
                tail += 1;
                near.poke(slot, tail);
            }
            5 => near.poke(HEARTBEAT, input.arbitrary()?),
            6 => {
                let at = input.int_in_range(HEARTBEAT..=Block::<Half>::LEN / 8 - 1)?;
                near.poke(at, input.arbitrary()?);
            }
            7 if everywhere => {
                let at = input.int_in_range(0..=Block::<Domain>::LEN / 8 - 1)?;
                let value = if input.arbitrary()? { memory.peek(at) ^ 1 } else { input.arbitrary()? };
                memory.poke(at, value);
            }
            8 => clock.advance(input.int_in_range(0..=2_000)?),
            9 => {
                let at = input.choose_index(2)?;
                kernels[at] = match kernels[at].take() {
                    Some(_) => None,
                    None => register(["a", "b"][at]),
                };
            }
            10 | 11 => {
                let to = fabric.kernels().map(|(id, _)| id).nth(input.choose_index(6)?);
                let priority = if input.arbitrary()? { Priority::Normal } else { Priority::High };
                if let (Some(kernel), Some(to)) = (&mut kernels[0], to) {
                    let _ = kernel.send_priority(to, &Message::new(1), priority);
                }
            }
            12 => {
                for kernel in kernels.iter_mut().flatten() {
                    if let Some(message) = kernel.try_receive() {
                        assert_eq!(message.header.check(64), Ok(()));
                        let _ = kernel.reply(&message, &message);
                    }
                    kernel.expire();
                }
            }
            _ => {
                gateway.pass();
                let _ = (gateway.in_flight(), gateway.is_connected(), gateway.stats(), gateway.proxies().count());
            }
        }
    }
    Ok(())
}

/// A frame that may mean something.
fn frame(input: &mut Unstructured<'_>, kernels: &[Option<Endpoint<'_, &Clock, Fixed<6, 4, 64>>>; 2]) -> Result<Header> {
    let mut bytes = [0; size_of::<Header>()];
    if input.ratio(1, 4)? {
        input.fill_buffer(&mut bytes)?;
    }
    let mut header: Header = bytemuck::cast(bytes);
    header.priority = *input.choose(&[0, 0, 0, 1, 16, 17, 18, 18, 19, 20, 21, 21])?;
    header.sequence = input.int_in_range(0..=40)?;
    if header.priority == 18 {
        header.sequence = u64::from(*input.choose(b"abxyz")?);
    }
    header.set_source(KernelId::new(input.int_in_range(0..=6)?, input.int_in_range(1..=3)?));
    let to = input.choose_index(2)?;
    header.set_destination(kernels[to].as_ref().map_or(KernelId::new(0, 1), |kernel| kernel.id()));
    header.deadline_ns = if input.arbitrary()? { u64::MAX } else { input.int_in_range(0..=10_000)? };
    header.kind = input.int_in_range(0..=7)?;
    header.hop_limit = 4;
    header.logical = input.int_in_range(0..=FRAMES as u16)?;
    Ok(header)
}
