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
use k2k_command::say;
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
    /// Kernels, one per tile, 1 to 255. A picture with fewer pixels than that gets fewer.
    #[arg(long, default_value_t = 4, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=i64::from(job::MOST_KERNELS)))]
    kernels: u32,
    /// Steps of the diffusion, 0 to 4294967295.
    #[arg(long, default_value_t = 30, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(0..))]
    iterations: u32,
    /// Differences well above this, of 255, are edges and stay. Above 0.
    #[arg(long, default_value_t = 20.0, allow_negative_numbers = true)]
    kappa: f32,
    /// Size of a step, above 0 and at most 0.25.
    #[arg(long, default_value_t = 0.2, allow_negative_numbers = true)]
    lambda: f32,
    /// Do not compare the result with the sequential reference.
    #[arg(long)]
    no_check: bool,
}

fn main() -> ExitCode {
    match k2k_command::parse::<Arguments>("denoise") {
        Ok(arguments) => k2k_command::end("denoise", 1, run(&arguments)),
        Err(status) => status,
    }
}

/// Where the noisy picture goes that `demo` makes.
fn noisy_path(output: &Path) -> PathBuf {
    output.with_file_name(format!("{}-noisy.png", output.file_stem().unwrap_or_default().to_string_lossy()))
}

fn run(arguments: &Arguments) -> Result<ExitCode, Box<dyn Error>> {
    // What is wrong with the arguments is said before any work is done.
    let params = Params::new(arguments.iterations, arguments.kappa, arguments.lambda)?;
    picture::check_output(&arguments.input, &arguments.output)?;
    let (input, clean) = if arguments.input.as_os_str() == "demo" {
        let clean = Picture::demo(768, 512);
        let noisy = clean.with_noise(18.0);
        noisy.write(&noisy_path(&arguments.output))?;
        say!("noisy         {}", noisy_path(&arguments.output).display())?;
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
    say!("written       {}", arguments.output.display())?;
    say!("size          {} x {} pixels, {} channel(s)", planes.width, planes.height, planes.channels)?;
    say!("tiles         {} ({} x {}), one kernel each", done.grid.len(), done.grid.columns(), done.grid.rows())?;
    say!("iterations    {}, kappa {}, lambda {}", params.iterations(), params.kappa(), params.lambda())?;
    say!("messages      {}, of them {} halos; {} retries", done.stats.sent, done.halos, done.retries)?;
    say!("hops          {}", done.stats.forwarded)?;
    say!("time          {seconds:.3} s")?;
    say!("speed         {:.1} million values per second", updates / seconds / 1e6)?;
    if let Some(clean) = clean {
        say!("error         {:.1} before, {:.1} after (of 255)", input.distance(&clean), output.distance(&clean))?;
    }
    if !arguments.no_check {
        let began = Instant::now();
        let same = output.planes.is_identical_to(&planes.diffused_by_reference(&params));
        let took = began.elapsed().as_secs_f64();
        say!("identical to the sequential reference: {} ({took:.3} s)", if same { "yes" } else { "NO" })?;
        if !same {
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}
