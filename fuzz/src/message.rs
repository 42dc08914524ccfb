use crate::world::{Clock, Memory, PAYLOAD, Small};
use k2k_core::{Config, DeliveryStatus, KernelId, Message, Priority, Registration};

/// Reads arbitrary bytes as messages, checks what the accepted ones promise, and sends a payload through a fabric.
pub fn message(input: &[u8]) {
    decode::<0>(input);
    decode::<64>(input);
    decode::<192>(input);
    carry(input);
}

fn decode<const P: usize>(input: &[u8]) {
    let mut bytes = vec![0; size_of::<Message<P>>()];
    let len = bytes.len().min(input.len());
    bytes[..len].copy_from_slice(&input[..len]);
    let message: Message<P> = bytemuck::pod_read_unaligned(&bytes);
    let header = message.header;
    assert_eq!(bytemuck::bytes_of(&header), &bytes[..size_of_val(&header)]);
    assert!(message.payload().len() <= P);
    drop(format!("{message:?} {} {}", header.id(), header.sent()));
    for found in [
        message.value::<[u8; 0]>().map(|_| 0),
        message.value::<u8>().map(|_| 1),
        message.value::<u64>().map(|_| 8),
        message.value::<[f32; 16]>().map(|_| 64),
        message.value::<[u64; 24]>().map(|_| 192),
    ] {
        match found {
            Ok(size) => assert_eq!(message.payload().len(), size),
            Err(error) => {
                assert_eq!(error.found, message.payload().len());
                assert_ne!(error.found, error.expected);
            }
        }
    }
    match header.check(P) {
        Ok(()) => {
            assert_eq!(usize::from(header.payload_len), message.payload().len());
            assert!(header.priority <= Priority::High as u8);
            assert!(header.sequence != 0 && !header.source().is_none() && !header.destination().is_none());
        }
        Err(error) => drop(error.to_string()),
    }
}

/// What `send` accepts arrives as it was.
fn carry(input: &[u8]) {
    let (flags, payload) = input.split_first().unwrap_or((&0, &[]));
    let mut message = match Message::<PAYLOAD>::from_bytes(9, payload) {
        Ok(message) => message.with_flags(*flags).with_correlation_id(u64::from(*flags)),
        Err(error) => {
            assert_eq!((error.len, error.capacity), (payload.len(), PAYLOAD));
            return;
        }
    };
    // Everything that is not the caller's to say must be overwritten.
    message.header.set_source(KernelId::new(u16::from(*flags), u32::from(*flags) << 24));
    message.header.set_destination(KernelId::from_raw(u64::MAX));
    message.header.logical = u16::from(*flags);
    message.header.hops = *flags;
    message.header.priority = *flags;
    message.header.sequence = u64::from(*flags);
    let memory = Memory::zeroed();
    let clock = Clock::default();
    let fabric: &Small = memory.fabric(&Config::default()).expect("zeroed memory is an idle fabric");
    let [mut a, mut b] = ["a", "b"].map(|name| {
        let who = Registration::new(name).expect("a short name");
        fabric.register(&who, &clock).expect("a free index")
    });
    let priority = if flags % 2 == 0 { Priority::Normal } else { Priority::High };
    let id = a.send_priority(b.id(), &message, priority).expect("an empty inbox has room");
    let received = b.try_receive().expect("it was sent");
    assert_eq!((received.payload(), received.header.flags, received.header.kind), (payload, *flags, 9));
    assert_eq!(received.header.check(PAYLOAD), Ok(()));
    assert_eq!((received.header.id(), received.header.source()), (id, KernelId::new(0, 1)));
    assert_eq!(a.receipt(id).map(|receipt| receipt.status), Ok(DeliveryStatus::Delivered));
}
