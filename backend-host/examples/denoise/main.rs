//! Removes noise from a picture: one kernel per tile, whose borders travel as messages at every iteration.
//!
//! ```text
//! cargo run --release --example denoise -- photo.jpg clean.png --kernels 12
//! cargo run --release --example denoise -- demo clean.png
//! ```
//!
//! The handler is in `k2k-denoise`, which knows nothing of hosts; `job.rs` is all that a program has to do around it.

mod job;
mod picture;

use clap::Parser;
use core::error::Error;
use k2k_denoise::Params;
use picture::Picture;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// Removes noise from a picture by anisotropic diffusion (Perona and Malik 1990), on kernels that exchange halos
/// through K2K.
#[derive(Debug, Parser)]
#[command(name = "denoise")]
struct Arguments {
    /// PNG or JPEG picture, or `demo`: a noisy picture is made, and written beside OUT.
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// Picture to write: .png, .jpg or .jpeg (which has no alpha).
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// Kernels, one per tile. A picture with fewer pixels than that gets fewer.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=i64::from(job::MOST_KERNELS)))]
    kernels: u32,
    /// Steps of the diffusion.
    #[arg(long, default_value_t = 30)]
    iterations: u32,
    /// Differences well above this, of 255, are edges and stay.
    #[arg(long, default_value_t = 20.0)]
    kappa: f32,
    /// Size of a step, at most 0.25.
    #[arg(long, default_value_t = 0.2)]
    lambda: f32,
    /// Do not compare the result with the sequential reference.
    #[arg(long)]
    no_check: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("denoise: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Where the noisy picture goes that `demo` makes.
fn noisy_path(output: &Path) -> PathBuf {
    output.with_file_name(format!("{}-noisy.png", output.file_stem().unwrap_or_default().to_string_lossy()))
}

fn run(arguments: &Arguments) -> Result<ExitCode, Box<dyn Error>> {
    // What is wrong with the arguments is said before any work is done.
    let params = Params::new(arguments.iterations, arguments.kappa, arguments.lambda)?;
    picture::format_of(&arguments.output)?;
    let (input, clean) = if arguments.input.as_os_str() == "demo" {
        let clean = Picture::demo(768, 512);
        let noisy = clean.with_noise(18.0);
        noisy.write(&noisy_path(&arguments.output))?;
        println!("noisy         {}", noisy_path(&arguments.output).display());
        (noisy, Some(clean))
    } else {
        (Picture::read(&arguments.input)?, None)
    };

    let done = job::diffuse(&input.planes, arguments.kernels, &params)?;
    let output = Picture { planes: done.planes, alpha: input.alpha.clone() };
    output.write(&arguments.output)?;

    let planes = &input.planes;
    let updates = planes.values.len() as f64 * f64::from(params.iterations());
    let seconds = done.elapsed.as_secs_f64();
    println!("written       {}", arguments.output.display());
    println!("size          {} x {} pixels, {} channel(s)", planes.width, planes.height, planes.channels);
    println!("tiles         {} ({} x {}), one kernel each", done.grid.len(), done.grid.columns(), done.grid.rows());
    println!("iterations    {}, kappa {}, lambda {}", params.iterations(), params.kappa(), params.lambda());
    println!("messages      {}, of them {} halos; {} retries", done.stats.sent, done.halos, done.retries);
    println!("hops          {}", done.stats.forwarded);
    println!("time          {seconds:.3} s");
    println!("speed         {:.1} million values per second", updates / seconds / 1e6);
    if let Some(clean) = clean {
        println!("error         {:.1} before, {:.1} after (of 255)", input.distance(&clean), output.distance(&clean));
    }
    if !arguments.no_check {
        let began = Instant::now();
        let same = output.planes.is_identical_to(&planes.diffused_by_reference(&params));
        let took = began.elapsed().as_secs_f64();
        println!("identical to the sequential reference: {} ({took:.3} s)", if same { "yes" } else { "NO" });
        if !same {
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}
