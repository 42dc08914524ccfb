use k2k::recording::{Head, Reader, Record, RecordingError, Writer};

/// Reads arbitrary bytes as a recording, and such with a head that is right. What is read is written and read again. Then
/// writes arbitrary messages, and reads what was written.
pub fn recording(input: &[u8]) {
    read(input);
    let (first, rest) = input.split_first().unwrap_or((&0, &[]));
    let head = Head { capacity: u32::from(*first), began_ns: 1, from: "a".to_owned(), to: "b".to_owned() };
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, &head).expect("a head that fits");
    let mut records = Vec::new();
    for piece in rest.chunks(usize::from(*first) + 2) {
        let payload = &piece[piece.len().min(1)..];
        let record = Record { offset_ns: records.len() as u64, payload: payload.to_vec(), ..Record::default() };
        match writer.write(&record) {
            Ok(()) => records.push(record),
            Err(why) => assert!(matches!(why, RecordingError::TooLong { len, most, .. } if len > most), "{why}"),
        }
    }
    writer.flush().expect("memory");
    drop(writer);
    // Whatever follows a good beginning.
    read(&[&file[..], rest].concat());
    match Reader::new(&file[..]).expect("a head").last() {
        Some(Err(RecordingError::Truncated { messages })) => assert_eq!(messages, records.len() as u64),
        other => panic!("without an end: {other:?}"),
    }
}

fn read(bytes: &[u8]) {
    let mut reader = match Reader::new(bytes) {
        Ok(reader) => reader,
        Err(why) => return drop(why.to_string()),
    };
    let head = reader.head().clone();
    assert!(head.capacity <= 65472);
    let mut again = Vec::new();
    let mut writer = Writer::new(&mut again, &head).expect("what was read fits");
    for record in &mut reader {
        match record {
            Ok(record) => writer.write(&record).expect("what was read fits"),
            Err(why) => {
                drop(why.to_string());
                assert!(reader.next().is_none(), "nothing follows an error");
                return;
            }
        }
    }
    let _ = writer.finish(0).expect("memory");
    assert!(again.len() == bytes.len());
}
