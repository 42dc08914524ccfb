//! The example `denoise` on real threads: any number of kernels gives the sequential reference's bits.

#[path = "../examples/denoise/job.rs"]
mod job;
#[path = "../examples/denoise/picture.rs"]
mod picture;

use core::time::Duration;
use job::{JobError, Planes};
use k2k::{Broker, Command, Fixed};
use k2k_denoise::{Grid, Outcome, Params};
use picture::{Picture, PictureError};
use std::path::{Path, PathBuf};
use std::time::Instant;

fn noise(width: u32, height: u32, channels: u32) -> Planes {
    let mut state = u64::from(width) << 40 | u64::from(height) << 20 | u64::from(channels);
    let values = (0..width * height * channels)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            f32::from((state >> 56) as u8)
        })
        .collect();
    Planes { width, height, channels, values }
}

fn params(iterations: u32) -> Params {
    Params::new(iterations, 40.0, 0.25).expect("in range")
}

#[test]
fn any_number_of_kernels_equals_the_reference_bit_for_bit() {
    let params = params(12);
    for (width, height, channels) in
        [(64, 48, 3), (61, 37, 3), (5, 131, 1), (12, 1, 3), (1, 12, 1), (1, 1, 3), (3, 2, 2)]
    {
        let planes = noise(width, height, channels);
        let reference = planes.diffused_by_reference(&params);
        for kernels in [1, 2, 3, 4, 6, 7, 12] {
            let done = job::diffuse(&planes, kernels, &params).expect("nothing fails");
            let what = format!("{width} x {height} x {channels}, {kernels} kernels");
            assert!(done.planes.is_identical_to(&reference), "{what}");
            assert!(done.grid.len() <= kernels && done.grid.len() >= kernels.min(width * height).min(2), "{what}");
            // START, REPORT and FINISH for each tile, and the halos.
            assert_eq!(done.stats.sent, done.halos + 3 * u64::from(done.grid.len()), "{what}");
            assert_eq!((done.stats.failed(), done.stats.forwarded, done.stats.corrupt), (0, 0, 0), "{what}");
        }
    }
}

#[test]
fn shards_of_one_and_two_slots_are_often_full_and_nothing_is_lost() {
    let (planes, params) = (noise(90, 70, 3), params(8));
    let reference = planes.diffused_by_reference(&params);
    for kernels in [2, 6, 7] {
        let grid = Grid::new(planes.width, planes.height, kernels).expect("a picture");
        let one = job::diffuse_in::<8, 1, 64>(&planes, grid, &params).expect("nothing fails");
        let two = job::diffuse_in::<8, 2, 64>(&planes, grid, &params).expect("nothing fails");
        for done in [one, two] {
            assert!(done.planes.is_identical_to(&reference), "{kernels} kernels");
            assert!(
                done.retries > 0,
                "{kernels} kernels: a border takes several messages, and never found the shard full"
            );
            assert_eq!(done.stats.failed(), 0);
        }
    }
}

#[test]
fn more_kernels_than_cores_and_than_the_first_fabrics_have_indices() {
    let (planes, params) = (noise(100, 80, 1), params(5));
    let reference = planes.diffused_by_reference(&params);
    for kernels in [15, 16, 31, 64, 100] {
        let done = job::diffuse(&planes, kernels, &params).expect("nothing fails");
        assert_eq!(done.grid.len(), kernels);
        assert!(done.planes.is_identical_to(&reference), "{kernels} kernels");
    }
}

#[test]
fn no_iterations_change_nothing() {
    let planes = noise(9, 9, 3);
    let done = job::diffuse(&planes, 4, &params(0)).expect("nothing fails");
    assert!(done.planes.is_identical_to(&planes));
    assert_eq!((done.halos, done.retries), (0, 0));
    assert!(!done.elapsed.is_zero());
}

#[test]
fn jobs_that_cannot_be_are_refused() {
    assert!(matches!(job::diffuse(&noise(4, 4, 1), 0, &params(1)), Err(JobError::Empty)));
    let empty = Planes { width: 0, height: 4, channels: 1, values: Vec::new() };
    assert!(matches!(job::diffuse(&empty, 4, &params(1)), Err(JobError::Empty)));
    let error = job::diffuse(&noise(40, 40, 1), 500, &params(1)).expect_err("too many");
    assert_eq!(error.to_string(), "500 kernels are too many: this program has fabrics for up to 255");
}

#[test]
fn a_tile_that_is_stopped_ends_the_job_with_a_reason_and_leaves_nothing_running() {
    let broker: Broker<Fixed<8, 16, 960>> = Broker::builder().build().expect("memory");
    let planes = noise(64, 64, 1);
    let grid = Grid::new(64, 64, 6).expect("a picture");
    let job = {
        let broker = broker.clone();
        std::thread::spawn(move || job::diffuse_on(&broker, &planes, grid, &params(u32::MAX)))
    };
    // Every wait here has an end: a job that never starts or never stops fails the test.
    let until = |what: &str, done: &dyn Fn() -> bool| {
        let began = Instant::now();
        while !done() {
            assert!(began.elapsed() < Duration::from_secs(30), "{what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let tile = || broker.find("tile-3");
    until("the tile exchanges halos", &|| {
        tile().and_then(|tile| broker.kernel_stats(tile)).is_some_and(|stats| stats.received > 10)
    });
    broker.command(tile().expect("just seen"), Command::Stop).expect("just seen");
    until("the job ends", &|| job.is_finished());
    let error = job.join().expect("no panic").expect_err("a tile is missing");
    // A neighbour tells that it misses the tile, or, where neighbours are slow, the controller sees that it has ended.
    match error {
        JobError::Tile { outcome: Some(Outcome::Undelivered(_)), .. } | JobError::Vanished { tile: 3 } => {}
        error => panic!("{error}"),
    }
    until("all tiles leave", &|| broker.kernels().is_empty());
}

#[test]
fn noise_goes_and_edges_stay() {
    let clean = Picture::demo(192, 128);
    let noisy = clean.with_noise(18.0);
    let params = Params::new(30, 20.0, 0.2).expect("in range");
    let planes = job::diffuse(&noisy.planes, 6, &params).expect("nothing fails").planes;
    let (before, after) = (noisy.distance(&clean), Picture { planes, alpha: None }.distance(&clean));
    assert!(before > 15.0 && after < before / 2.0, "{before} before, {after} after");
}

fn file(directory: &tempfile::TempDir, name: &str) -> PathBuf {
    directory.path().join(name)
}

#[test]
fn a_png_is_written_and_read_without_loss_with_and_without_alpha() {
    let directory = tempfile::tempdir().expect("a directory");
    for channels in [1, 3] {
        for alpha in [None, Some((0..77).collect::<Vec<u8>>())] {
            let picture = Picture { planes: noise(11, 7, channels), alpha };
            let path = file(&directory, "picture.png");
            picture.write(&path).expect("a place to write");
            let back = Picture::read(&path).expect("a picture");
            assert!(back.planes.is_identical_to(&picture.planes));
            assert_eq!(back.alpha, picture.alpha);
        }
    }
}

#[test]
fn a_jpeg_is_recognised_by_its_contents_and_has_no_alpha() {
    let directory = tempfile::tempdir().expect("a directory");
    let picture = Picture { alpha: Some(vec![9; 64 * 48]), ..Picture::demo(64, 48) };
    let (jpeg, misnamed) = (file(&directory, "picture.jpg"), file(&directory, "picture.png"));
    picture.write(&jpeg).expect("a place to write");
    std::fs::rename(jpeg, &misnamed).expect("the same directory");
    let back = Picture::read(&misnamed).expect("a picture");
    assert!(back.distance(&picture) < 10.0, "{}", back.distance(&picture));
    assert_eq!(back.alpha, None);
}

#[test]
fn a_picture_that_the_camera_held_upright_is_turned() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = file(&directory, "picture.jpg");
    Picture::demo(64, 48).write(&path).expect("a place to write");
    let bytes = std::fs::read(&path).expect("just written");
    // After the first marker: an Exif segment of 34 bytes that says only "orientation 6", a quarter turn.
    let mut turned = bytes[..2].to_vec();
    turned.extend(*b"\xff\xe1\x00\x22Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0");
    turned.extend(&bytes[2..]);
    std::fs::write(&path, turned).expect("a place to write");
    let planes = Picture::read(&path).expect("a picture").planes;
    assert_eq!((planes.width, planes.height), (48, 64));
}

#[test]
fn values_are_rounded_to_the_nearest_byte_and_clamped() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = file(&directory, "picture.png");
    let values = vec![-3.0, 0.49, 0.5, 254.49, 254.5, 300.0];
    let picture = Picture { planes: Planes { width: 6, height: 1, channels: 1, values }, alpha: None };
    picture.write(&path).expect("a place to write");
    assert_eq!(Picture::read(&path).expect("a picture").planes.values, [0.0, 0.0, 1.0, 254.0, 255.0, 255.0]);
}

#[test]
fn files_that_are_no_pictures_are_told_apart() {
    let directory = tempfile::tempdir().expect("a directory");
    let missing = file(&directory, "missing.png");
    assert!(matches!(Picture::read(&missing), Err(PictureError::Read { .. })));
    let text = file(&directory, "text.png");
    std::fs::write(&text, "no picture").expect("a place to write");
    assert!(matches!(Picture::read(&text), Err(PictureError::UnknownFormat { .. })));
    let short = file(&directory, "short.png");
    Picture::demo(64, 48).write(&short).expect("a place to write");
    let bytes = std::fs::read(&short).expect("just written");
    std::fs::write(&short, &bytes[..bytes.len() / 2]).expect("a place to write");
    assert!(matches!(Picture::read(&short), Err(PictureError::Decode { .. })));
    assert!(matches!(picture::format_of(Path::new("x.gif")), Err(PictureError::UnknownExtension { .. })));
    assert!(matches!(picture::format_of(Path::new("x")), Err(PictureError::UnknownExtension { .. })));
    assert!(picture::format_of(Path::new("x.JPEG")).is_ok());
}

#[test]
fn a_picture_that_would_be_overwritten_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let (here, there) = (file(&directory, "picture.png"), directory.path().join("./picture.png"));
    assert!(picture::check_output(&here, &there).is_ok(), "there is none yet");
    Picture::demo(8, 8).write(&here).expect("a place to write");
    assert!(matches!(picture::check_output(&here, &there), Err(PictureError::OutputIsInput { .. })));
    assert!(picture::check_output(&here, &file(&directory, "other.png")).is_ok());
    assert!(matches!(picture::check_output(&here, Path::new("x")), Err(PictureError::UnknownExtension { .. })));
}
