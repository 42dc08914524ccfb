//! The handler on a host's thread: the same source, without a device.

use core::time::Duration;
use k2k::{Broker, Fixed, Message, StartOptions};
use k2k_double::Double;

#[test]
fn number_comes_back_doubled() -> Result<(), Box<dyn core::error::Error>> {
    let broker: Broker<Fixed<16, 64, 192>> = Broker::builder().build()?;
    let double = broker.start("double", Double::default(), StartOptions::default())?;
    let mut me = broker.register_parking("me")?;
    let request = me.send(double.id(), &Message::from_value(1, &21u64))?;
    let answer = me.receive(Duration::from_secs(10))?;
    assert_eq!((answer.value::<u64>()?, answer.header.correlation_id), (42, request.sequence));
    assert_eq!(double.stop_and_join(Duration::from_secs(10))?.answered(), 1);
    Ok(())
}
