//! The host's example on a device's kernels: removes noise from a picture, one tile per block of a GPU.
//!
//! ```text
//! cargo run --release -p k2k-gpu-denoise -- photo.jpg clean.png
//! cargo run --release -p k2k-gpu-denoise -- demo clean.png --emulated
//! ```
//!
//! The handler is compiled from the same source as the host's; the result is the same bit for bit.

/// Reads and writes pictures: as the host's example does.
#[path = "../../../../backend-host/examples/denoise/picture.rs"]
mod picture;

/// What `picture` makes.
use k2k_gpu_denoise::job;

use clap::Parser;
use core::error::Error;
use core::time::Duration;
use k2k_command::{note, say};
use k2k_cuda::{Device, EmulatedOptions};
use k2k_denoise::Params;
use picture::Picture;
use std::path::PathBuf;
use std::process::ExitCode;

/// Removes noise from a picture by anisotropic diffusion (Perona and Malik 1990), on the blocks of a GPU.
#[derive(Debug, Parser)]
#[command(name = "k2k-gpu-denoise")]
struct Arguments {
    /// PNG or JPEG picture, or `demo`.
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// Picture to write: .png, .jpg or .jpeg.
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// Interpret the kernels on the CPU, slowly, also where there is a GPU.
    #[arg(long)]
    emulated: bool,
    #[arg(long, default_value_t = 9, help = format!("Kernels, one per tile, 1 to {}", job::MOST_TILES))]
    #[arg(allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=i64::from(job::MOST_TILES)))]
    kernels: u32,
    /// Steps of the diffusion, 0 to 4294967295.
    #[arg(long, default_value_t = 10, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(0..))]
    iterations: u32,
}

fn main() -> ExitCode {
    match k2k_command::parse::<Arguments>("k2k-gpu-denoise") {
        Ok(arguments) => k2k_command::end("k2k-gpu-denoise", 1, run(&arguments)),
        Err(status) => status,
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let params = Params::new(arguments.iterations, 20.0, 0.2)?;
    picture::check_output(&arguments.input, &arguments.output)?;
    let emulated = || Device::emulated(EmulatedOptions::default());
    let device = if arguments.emulated {
        emulated()?
    } else {
        Device::first().or_else(|e| {
            if !e.is_no_gpu() {
                return Err(e);
            }
            note(format_args!("{e}\nGoing on with the emulated device, which is slow."));
            emulated()
        })?
    };
    let (noisy, clean) = if arguments.input.as_os_str() == "demo" {
        let clean = if device.probe().is_gpu { Picture::demo(768, 512) } else { Picture::demo(96, 64) };
        (clean.with_noise(18.0), Some(clean))
    } else {
        (Picture::read(&arguments.input)?, None)
    };
    let done = job::diffuse(&device, &noisy.planes, arguments.kernels, &params, Duration::from_secs(300))?;
    let same = done.planes.is_identical_to(&noisy.planes.diffused_by_reference(&params));
    let output = Picture { planes: done.planes, alpha: noisy.alpha.clone() };
    output.write(&arguments.output)?;
    say!("device        {}", device.probe().name)?;
    say!("written       {}", arguments.output.display())?;
    say!("size          {} x {} pixels", noisy.planes.width, noisy.planes.height)?;
    say!("tiles         {}, one block each; {} halos", done.tiles, done.halos)?;
    say!("time          {:.3} s", done.elapsed.as_secs_f64())?;
    if let Some(clean) = clean {
        say!("error         {:.1} before, {:.1} after (of 255)", noisy.distance(&clean), output.distance(&clean))?;
    }
    say!("identical to the sequential reference: {}", if same { "yes" } else { "NO" })?;
    Ok(if same { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
