//! The picture that a device's kernels make is the one that the sequential reference makes, bit for bit.

use core::time::Duration;
use k2k_cuda::{Device, EmulatedOptions};
use k2k_denoise::Params;
use k2k_gpu_denoise::job::{Planes, diffuse};

#[test]
fn tiles_on_a_device_make_the_same_picture_as_the_sequential_reference() {
    let (width, height, channels) = (24, 18, 3);
    // Noise that is the same everywhere.
    let values =
        (0..width * height * channels).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 16_777_216.0);
    let picture = Planes { width, height, channels, values: values.collect() };
    let params = Params::new(8, 0.1, 0.2).unwrap();
    for seed in 1..=3 {
        let device = Device::emulated(EmulatedOptions { seed, races: true, ..EmulatedOptions::default() }).unwrap();
        let done = diffuse(&device, &picture, 9, &params, Duration::from_secs(120)).unwrap();
        assert!(done.planes.is_identical_to(&picture.diffused_by_reference(&params)), "seed {seed}: another picture");
        assert!(!picture.is_identical_to(&done.planes) && done.halos > 0, "seed {seed}: nothing was done");
    }
}
