//! Kernels that rustc compiled do what their source says, whatever the interleaving.

mod common;
#[path = "fixtures/src/math.rs"]
#[allow(unreachable_pub, dead_code, reason = "compiled for the device as well")]
mod math;

use common::{LIMIT, buffer, halves, machine, read_halves, read_words, words};
use k2k_ptx_executor::{Arg, Machine};

/// Runs one kernel to its end and joins it.
fn run(machine: &mut Machine, kernel: &str, grid: u32, block: u32, args: &[Arg]) {
    let launch = machine.launch(kernel, grid, block, args).unwrap();
    machine.run(LIMIT).unwrap_or_else(|error| panic!("{kernel}: {error}"));
    assert!(machine.is_finished(launch) && machine.join(launch));
}

fn numbers(count: usize) -> Vec<u64> {
    let mut x = 0x1234_5678_9abc_def1u64;
    core::iter::repeat_with(|| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    })
    .take(count)
    .collect()
}

#[test]
fn all_threads_are_counted() {
    for seed in 0..100 {
        let mut m = machine(seed);
        let counters = halves(&mut m, "counters", &[0, 0]);
        run(&mut m, "count", 4, 32, &[counters.into(), (counters + 4).into()]);
        assert_eq!(read_halves(&mut m, counters, 2).unwrap(), [128, 128]);
    }
}

#[test]
fn echo_copies_what_there_is() {
    let mut m = machine(1);
    let values = numbers(100);
    let (from, to) = (words(&mut m, "from", &values), words(&mut m, "to", &[0; 100]));
    run(&mut m, "echo", 4, 32, &[from.into(), to.into(), 100u32.into()]);
    assert_eq!(read_words(&mut m, to, 100).unwrap(), values);
}

#[test]
fn a_flag_goes_to_and_fro() {
    for seed in 0..100 {
        for kernel in ["ping_pong", "ping_pong_fenced"] {
            let mut m = machine(seed);
            let memory = words(&mut m, "flag and payload", &[0, 0]);
            let mut args = vec![memory.into(), (memory + 8).into(), 10u64.into()];
            if kernel == "ping_pong" {
                args.push(0u32.into());
            }
            run(&mut m, kernel, 2, 1, &args);
            assert_eq!(read_words(&mut m, memory, 2).unwrap(), [20, 2 * 45 + 10]);
        }
    }
}

#[test]
fn a_release_sequence_reaches_everyone() {
    for seed in 0..100 {
        let mut m = machine(seed);
        let memory = words(&mut m, "word and payload", &[0; 6]);
        run(&mut m, "release_sequence", 4, 1, &[memory.into(), (memory + 8).into(), (memory + 16).into()]);
        assert_eq!(read_words(&mut m, memory + 24, 3).unwrap(), [77; 3]);
    }
}

#[test]
fn two_launches_meet() {
    for seed in 0..20 {
        let mut m = machine(seed);
        let memory = words(&mut m, "flag and payload", &[0, 0]);
        for side in 0..2u32 {
            m.launch("ping_pong", 1, 1, &[memory.into(), (memory + 8).into(), 10u64.into(), side.into()]).unwrap();
        }
        m.run(LIMIT).unwrap();
    }
}

#[test]
fn arrays_stay_in_local_memory() {
    assert!(common::PTX.contains("__local_depot"));
    let mut m = machine(3);
    let out = halves(&mut m, "out", &[0; 64]);
    run(&mut m, "local_array", 2, 32, &[out.into(), 100u32.into()]);
    let expected = |me: u32| {
        let mut bins = [0u32; 16];
        (0..100).for_each(|i| bins[((i * 7 + me) % 16) as usize] += i);
        (0..16).fold(0u32, |sum, i| sum.wrapping_mul(31).wrapping_add(bins[((i + me) % 16) as usize]))
    };
    assert_eq!(read_halves(&mut m, out, 64).unwrap(), (0..64).map(expected).collect::<Vec<_>>());
}

fn fold((low, high): (u64, u32), depth: u32, trail: &mut [u32; 8]) -> (u64, u32) {
    trail[(depth % 8) as usize] = trail[(depth % 8) as usize].wrapping_add(high);
    if depth == 0 {
        return (low, high);
    }
    let next = (low.rotate_left(depth) ^ u64::from(depth), high.wrapping_mul(2_654_435_761));
    let deeper = fold(next, depth - 1, trail);
    (deeper.0.wrapping_add(low), deeper.1 ^ trail[(depth / 2) as usize])
}

#[test]
fn calls_nest_and_pass_structures() {
    let mut m = machine(4);
    let out = words(&mut m, "out", &[0; 8]);
    let pair = [&0x0123_4567_89ab_cdef_u64.to_le_bytes()[..], &77u32.to_le_bytes(), &[0; 4]].concat();
    run(&mut m, "calls", 2, 4, &[Arg::Bytes(pair), 6u32.into(), out.into()]);
    let expected = |rank: u32| {
        let mut trail = [1u32; 8];
        let (low, high) = fold((0x0123_4567_89ab_cdef, 77), 6 + rank, &mut trail);
        trail.iter().enumerate().fold(low ^ u64::from(high), |s, (i, t)| s.wrapping_add(u64::from(*t) << i))
    };
    assert_eq!(read_words(&mut m, out, 8).unwrap(), (0..8).map(expected).collect::<Vec<_>>());
}

#[test]
fn tables_of_functions_constants_and_branches() {
    let mut m = machine(5);
    let choices: Vec<u32> = (0..64).collect();
    let (choice, out) = (halves(&mut m, "choice", &choices), halves(&mut m, "out", &[0; 64]));
    run(&mut m, "tables", 2, 32, &[choice.into(), out.into()]);
    let table = [3u32, 1, 4, 1, 5, 9, 2, 6];
    let mut total = 40;
    let expected: Vec<u32> = choices
        .iter()
        .map(|c| {
            let t = table[(c % 8) as usize];
            let x = [t * 2, t * 3, t * t][(c % 3) as usize];
            total += u64::from(x);
            match c % 11 {
                0 => x ^ 0x55,
                1 => x.swap_bytes(),
                2 => x.reverse_bits(),
                3 => x.leading_zeros(),
                4 => x.count_ones() + 100,
                5 => x / 7,
                6 => x % 7,
                7 => x.trailing_zeros(),
                8 => (x as i32 - 50) as u32 >> 3,
                9 => ((x as i32 - 50) / 3) as u32,
                _ => x.rotate_right(5),
            }
        })
        .collect();
    assert_eq!(read_halves(&mut m, out, 64).unwrap(), expected);
    let name = common::PTX.lines().find_map(|l| l.split_whitespace().find(|w| w.ends_with("TOTAL[8]"))).unwrap();
    let (address, bytes) = m.variable(name.trim_end_matches("[8]")).unwrap();
    assert_eq!((bytes, read_words(&mut m, address, 1).unwrap()[0]), (8, total));
}

#[test]
fn shared_memory_and_barriers_sum() {
    for seed in 0..50 {
        let mut m = machine(seed);
        let values: Vec<u32> = numbers(3 * 64).iter().map(|v| *v as u32 >> 8).collect();
        let (from, out) = (halves(&mut m, "from", &values), halves(&mut m, "out", &[0; 3]));
        run(&mut m, "reduce", 3, 64, &[from.into(), out.into()]);
        let expected: Vec<u32> = values.chunks(64).map(|c| c.iter().fold(0u32, |a, b| a.wrapping_add(*b))).collect();
        assert_eq!(read_halves(&mut m, out, 3).unwrap(), expected);
    }
}

#[test]
fn lanes_of_a_warp_exchange_and_vote() {
    for seed in 0..50 {
        let mut m = machine(seed);
        let values: Vec<u32> = numbers(64).iter().map(|v| *v as u32 % 97 + 3 * seed as u32).collect();
        let (from, out) = (halves(&mut m, "from", &values), halves(&mut m, "out", &[0; 640]));
        run(&mut m, "warp_operations", 1, 64, &[from.into(), out.into()]);
        let found = read_halves(&mut m, out, 640).unwrap();
        for (me, row) in found.chunks(10).enumerate() {
            let (lane, warp) = (me % 32, &values[me / 32 * 32..][..32]);
            let mask = |test: &dyn Fn(u32) -> bool| (0..32).filter(|i| test(warp[*i])).fold(0u32, |m, i| m | 1 << i);
            let expected = [
                warp[3],
                if lane < 2 { warp[lane] } else { warp[lane - 2] },
                if lane + 5 > 31 { warp[lane] } else { warp[lane + 5] },
                warp[lane ^ 1],
                mask(&|v| v & 1 != 0),
                u32::from(warp.iter().any(|v| *v > 100)),
                u32::from(warp.iter().all(|v| *v > 100)),
                mask(&|v| v % 4 == warp[lane] % 4),
                warp.iter().sum(),
                lane as u32,
            ];
            assert_eq!(row, expected, "thread {me}, seed {seed}");
        }
    }
}

#[test]
fn a_barrier_of_the_warp_orders_memory() {
    for seed in 0..50 {
        let mut m = machine(seed);
        let (cell, out) = (halves(&mut m, "cell", &[0]), halves(&mut m, "out", &[0; 32]));
        run(&mut m, "warp_broadcast", 1, 32, &[cell.into(), out.into()]);
        assert_eq!(read_halves(&mut m, out, 32).unwrap(), (42..74).collect::<Vec<_>>());
    }
}

#[test]
fn single_precision_equals_the_host_bit_for_bit() {
    let special = [0.0, -0.0, 1.0, -1.5, 3e38, -3e38, 1e-40, f32::INFINITY, 0.1, 1e10, -7.75, 255.0, -128.5, 4e9, 1e19];
    let random = numbers(3000);
    let pick = |i: usize| {
        let bits = random[i];
        if bits.is_multiple_of(3) {
            special[(bits >> 8) as usize % special.len()]
        } else {
            f32::from_bits((bits >> 20) as u32)
        }
    };
    let inputs: Vec<[f32; 3]> = (0..1000).map(|i| [pick(3 * i), pick(3 * i + 1), pick(3 * i + 2)]).collect();
    let mut m = machine(6);
    let bytes: Vec<[u8; 4]> = inputs.iter().flatten().map(|v| v.to_le_bytes()).collect();
    let (from, out) = (buffer(&mut m, "from", &bytes), halves(&mut m, "out", &[0; 16_000]));
    run(&mut m, "math_single", 20, 50, &[from.into(), out.into()]);
    let found = read_halves(&mut m, out, 16_000).unwrap();
    for ([a, b, c], row) in inputs.iter().zip(found.chunks(16)) {
        for (i, (found, expected)) in row.iter().zip(math::single(*a, *b, *c)).enumerate() {
            // What is not a number has no agreed bits.
            let nan = i < 11 && f32::from_bits(*found).is_nan() && f32::from_bits(expected).is_nan();
            assert!(nan || *found == expected, "{a:e} {b:e} {c:e}, result {i}: {found:#x}, host {expected:#x}");
        }
    }
}

#[test]
fn double_precision_equals_the_host_bit_for_bit() {
    let special = [0.0, -0.0, 1.0, -1.5, 1e308, -1e308, 1e-310, f64::INFINITY, 0.1, 1e10, -7.75, 3e9, 1e19, -1e19];
    let random = numbers(1500);
    let pick = |i: usize| {
        let bits = random[i];
        if bits.is_multiple_of(3) {
            special[(bits >> 8) as usize % special.len()]
        } else {
            f64::from_bits(bits.rotate_left(9))
        }
    };
    let inputs: Vec<[f64; 3]> = (0..500).map(|i| [pick(3 * i), pick(3 * i + 1), pick(3 * i + 2)]).collect();
    let mut m = machine(7);
    let bytes: Vec<[u8; 8]> = inputs.iter().flatten().map(|v| v.to_le_bytes()).collect();
    let (from, out) = (buffer(&mut m, "from", &bytes), words(&mut m, "out", &[0; 4000]));
    run(&mut m, "math_double", 10, 50, &[from.into(), out.into()]);
    let found = read_words(&mut m, out, 4000).unwrap();
    for ([a, b, c], row) in inputs.iter().zip(found.chunks(8)) {
        for (i, (found, expected)) in row.iter().zip(math::double(*a, *b, *c)).enumerate() {
            let nan = ![3, 4].contains(&i) && f64::from_bits(*found).is_nan() && f64::from_bits(expected).is_nan();
            assert!(nan || *found == expected, "{a:e} {b:e} {c:e}, result {i}: {found:#x}, host {expected:#x}");
        }
    }
}

#[test]
fn integers_equal_the_host() {
    let random = numbers(1000);
    let inputs: Vec<[u64; 2]> = random
        .chunks(2)
        .map(|c| {
            [c[0] >> (c[1] % 64), if c[0].is_multiple_of(5) { c[1].wrapping_neg() % 9 } else { c[1] >> (c[0] % 61) }]
        })
        .collect();
    let mut m = machine(8);
    let (from, out) = (words(&mut m, "from", &inputs.concat()), words(&mut m, "out", &[0; 8000]));
    run(&mut m, "math_integer", 10, 50, &[from.into(), out.into()]);
    let found = read_words(&mut m, out, 8000).unwrap();
    for ([a, b], row) in inputs.iter().zip(found.chunks(16)) {
        assert_eq!(row, math::integer(*a, *b), "{a:#x} {b:#x}");
    }
}

#[test]
fn the_clock_runs_and_sleepers_wake() {
    let mut m = machine(9);
    let (word, out) = (halves(&mut m, "word", &[0, 0]), words(&mut m, "out", &[0]));
    run(&mut m, "wait_or_give_up", 1, 1, &[word.into(), 1_000_000u64.into(), out.into()]);
    let waited = read_words(&mut m, out, 1).unwrap()[0];
    assert!((1_000_000..1_010_000).contains(&waited), "{waited}");
    assert!(m.executed() < 200_000, "sleep costs no instructions");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let trace = |seed| {
        let mut m = machine(seed);
        let memory = words(&mut m, "flag and payload", &[0, 0]);
        run(&mut m, "ping_pong", 2, 1, &[memory.into(), (memory + 8).into(), 10u64.into(), 0u32.into()]);
        m.executed()
    };
    assert_eq!(trace(11), trace(11));
    assert!((0..10).any(|seed| trace(seed) != trace(11)), "seeds differ");
}
