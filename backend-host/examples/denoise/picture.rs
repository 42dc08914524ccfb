//! Pictures: reading, writing, and one to try things on.

use crate::job::Planes;
use core::fmt;
use image::{DynamicImage, ExtendedColorType, ImageDecoder, ImageError, ImageFormat, ImageReader};
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A picture of 8 bits per channel: grey or colour, with or without alpha.
#[derive(Clone, Debug)]
pub(crate) struct Picture {
    /// 1 (grey) or 3 (red, green, blue), on the scale 0 to 255.
    pub(crate) planes: Planes,
    /// One value per pixel; passed through as it is.
    pub(crate) alpha: Option<Vec<u8>>,
}

/// Why a picture could not be read or written.
#[derive(Debug)]
pub(crate) enum PictureError {
    /// The file cannot be opened or read.
    Read { path: PathBuf, why: io::Error },
    /// Neither PNG nor JPEG, by its contents.
    UnknownFormat { path: PathBuf },
    /// PNG or JPEG, but damaged or of a kind that cannot be decoded.
    Decode { path: PathBuf, why: ImageError },
    /// The name to write to ends neither in .png nor in .jpg or .jpeg.
    UnknownExtension { path: PathBuf },
    /// The file cannot be written.
    Write { path: PathBuf, why: ImageError },
    /// The picture to read would be overwritten.
    OutputIsInput { path: PathBuf },
}

impl fmt::Display for PictureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, why } => write!(f, "cannot read {}: {why}", path.display()),
            Self::UnknownFormat { path } => write!(f, "{} is neither a PNG nor a JPEG picture", path.display()),
            Self::Decode { path, why } => write!(f, "{} cannot be decoded: {why}", path.display()),
            Self::UnknownExtension { path } => {
                write!(f, "cannot tell how to write {}: its name must end in .png, .jpg or .jpeg", path.display())
            }
            Self::Write { path, why } => write!(f, "cannot write {}: {why}", path.display()),
            Self::OutputIsInput { path } => {
                write!(f, "{} is both IN and OUT: it would be overwritten", path.display())
            }
        }
    }
}

impl core::error::Error for PictureError {}

/// A format that this program writes, by the name of the file.
pub(crate) fn format_of(path: &Path) -> Result<ImageFormat, PictureError> {
    match ImageFormat::from_path(path) {
        Ok(format @ (ImageFormat::Png | ImageFormat::Jpeg)) => Ok(format),
        _ => Err(PictureError::UnknownExtension { path: path.to_owned() }),
    }
}

/// Whether a picture may be written there, if `input` is what is read.
pub(crate) fn check_output(input: &Path, output: &Path) -> Result<(), PictureError> {
    format_of(output)?;
    let file = |path: &Path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    if file(input).is_some_and(|input| Some(input) == file(output)) {
        return Err(PictureError::OutputIsInput { path: output.to_owned() });
    }
    Ok(())
}

/// The nearest of the 256 values; halves are rounded up. The one place that rounds.
fn to_byte(value: f32) -> u8 {
    // The cast saturates.
    (value + 0.5).floor() as u8
}

impl Picture {
    /// Reads a PNG or JPEG picture, whatever its name.
    pub(crate) fn read(path: &Path) -> Result<Self, PictureError> {
        let at = || path.to_owned();
        let read = |why| PictureError::Read { path: at(), why };
        let decode = |why| match why {
            ImageError::IoError(why) if why.kind() != io::ErrorKind::UnexpectedEof => read(why),
            why => PictureError::Decode { path: at(), why },
        };
        let file = BufReader::new(File::open(path).map_err(read)?);
        let reader = ImageReader::new(file).with_guessed_format().map_err(read)?;
        if !matches!(reader.format(), Some(ImageFormat::Png | ImageFormat::Jpeg)) {
            return Err(PictureError::UnknownFormat { path: at() });
        }
        let mut decoder = reader.into_decoder().map_err(decode)?;
        // Cameras write pictures as their sensor lies, and say in the metadata, which is not kept, how to turn them.
        let orientation = decoder.orientation().map_err(decode)?;
        let mut image = DynamicImage::from_decoder(decoder).map_err(decode)?;
        image.apply_orientation(orientation);
        Ok(Self::from_image(&image))
    }

    /// 16-bit pictures are reduced to 8 bits.
    pub(crate) fn from_image(image: &DynamicImage) -> Self {
        let colour = image.color();
        let (width, height) = (image.width(), image.height());
        let channels: u32 = if colour.has_color() { 3 } else { 1 };
        let pixels = image.to_rgba8();
        // Of a grey picture red, green and blue are the same.
        let values =
            (0..channels as usize).flat_map(|c| pixels.pixels().map(move |pixel| f32::from(pixel.0[c]))).collect();
        let alpha = colour.has_alpha().then(|| pixels.pixels().map(|pixel| pixel.0[3]).collect());
        Self { planes: Planes { width, height, channels, values }, alpha }
    }

    /// Writes a PNG or JPEG picture, as the name says. JPEG has no alpha.
    pub(crate) fn write(&self, path: &Path) -> Result<(), PictureError> {
        let format = format_of(path)?;
        let Planes { width, height, channels, values } = &self.planes;
        let alpha = self.alpha.as_ref().filter(|_| format == ImageFormat::Png);
        let len = *width as usize * *height as usize;
        let mut bytes = Vec::with_capacity(values.len() + len);
        for pixel in 0..len {
            bytes.extend((0..*channels as usize).map(|c| to_byte(values[c * len + pixel])));
            bytes.extend(alpha.map(|alpha| alpha[pixel]));
        }
        let colour = match (channels, alpha) {
            (1, None) => ExtendedColorType::L8,
            (1, Some(_)) => ExtendedColorType::La8,
            (_, None) => ExtendedColorType::Rgb8,
            (_, Some(_)) => ExtendedColorType::Rgba8,
        };
        image::save_buffer_with_format(path, &bytes, *width, *height, colour, format)
            .map_err(|why| PictureError::Write { path: path.to_owned(), why })
    }

    /// A sky, a sun, hills, a fence and a flag: slopes and edges of all kinds, without noise.
    pub(crate) fn demo(width: u32, height: u32) -> Self {
        let mut values = vec![[0.0f32; 3]; width as usize * height as usize];
        for (i, value) in values.iter_mut().enumerate() {
            let x = (i % width as usize) as f32 / width as f32;
            let y = (i / width as usize) as f32 / height as f32;
            let hill = 0.72 + 0.06 * (x * 9.0).sin();
            let (dx, dy) = (x - 0.72, (y - 0.26) * height as f32 / width as f32);
            *value = if (0.1..0.4).contains(&x) && (0.15..0.4).contains(&y) {
                [[200.0, 40.0, 50.0], [235.0, 235.0, 230.0], [40.0, 70.0, 170.0]][((x - 0.1) * 10.0) as usize % 3]
            } else if (0.09..0.1).contains(&x) && y > 0.12 {
                [60.0, 45.0, 35.0]
            } else if y > 0.86 && (x * 24.0).fract() < 0.35 {
                [225.0, 215.0, 195.0]
            } else if y > hill {
                [60.0 + 60.0 * (1.0 - y), 130.0 - 50.0 * x, 60.0]
            } else if dx * dx + dy * dy < 0.012 {
                [250.0, 215.0, 90.0]
            } else {
                [110.0 + 90.0 * y, 160.0 + 50.0 * y, 235.0]
            };
        }
        let values = (0..3).flat_map(|c| values.iter().map(move |pixel| pixel[c].round())).collect();
        Self { planes: Planes { width, height, channels: 3, values }, alpha: None }
    }

    /// The same picture with noise of about this standard deviation, the same each time.
    pub(crate) fn with_noise(&self, deviation: f32) -> Self {
        let mut state = 0x853c_49e6_748f_ea9b_u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 24) as f32
        };
        let mut noisy = self.clone();
        for value in &mut noisy.planes.values {
            // The sum of four uniform numbers: mean 2, variance 1/3.
            let sum: f32 = (0..4).map(|_| uniform()).sum();
            *value = f32::from(to_byte(*value + (sum - 2.0) * 3.0f32.sqrt() * deviation));
        }
        noisy
    }

    /// Root of the mean squared difference.
    pub(crate) fn distance(&self, other: &Self) -> f64 {
        let values = self.planes.values.iter().zip(&other.planes.values);
        let sum: f64 = values.map(|(a, b)| f64::from(a - b).powi(2)).sum();
        (sum / self.planes.values.len() as f64).sqrt()
    }
}
