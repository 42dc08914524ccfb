//! NVIDIA's own optimiser and code generator, libNVVM, in the place of LLVM's: the one that `nvcc` and rust-cuda use.
//!
//! rustc's LLVM optimises the module and hands it over as text. libNVVM checks that text, optimises once more and writes
//! PTX. For processors from sm_100 on it reads the IR of LLVM 22; for older ones that of LLVM 7, which no compiler of
//! today writes. Accesses to shared words are inline PTX (`k2k-core`'s feature `ptx-asm`), since libNVVM refuses atomic
//! loads, stores and fences of LLVM.

use core::error::Error;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::fmt;
use core::fmt::Write;
use core::ptr;
use libloading::Library;
use std::ffi::CString;
use std::path::{Path, PathBuf};

/// Which package brings the library.
pub const NVVM_INSTALL: &str = "pip install nvidia-nvvm";

/// The oldest processor for which libNVVM reads the IR of a compiler of today.
pub const NVVM_ARCH: &str = "sm_100";

/// Names of the library, the first one that of CUDA 12 and 13.
const NAMES: [&str; 2] = ["libnvvm.so.4", "libnvvm.so"];

/// How libNVVM lays out data for all processors of 64 bits; rustc's line says the same of fewer types.
const DATA_LAYOUT: &str = "e-p:64:64:64-p6:32:32:32-i1:8:8-i8:8:8-i16:16:16-i32:32:32-i64:64:64-i128:128:128-f32:32:32-\
    f64:64:64-f128:128:128-v16:16:16-v32:32:32-v64:64:64-v128:128:128-n16:32:64-a:8:8";

type Program = *mut c_void;
/// `nvvmResult`: 0 is success.
type Status = c_int;

/// The library's functions that are called here: those of `nvvm.h`.
struct Functions {
    ir_version: unsafe extern "C" fn(*mut c_int, *mut c_int, *mut c_int, *mut c_int) -> Status,
    /// Since CUDA 13.
    llvm_version: Option<unsafe extern "C" fn(*const c_char, *mut c_int) -> Status>,
    create: unsafe extern "C" fn(*mut Program) -> Status,
    destroy: unsafe extern "C" fn(*mut Program) -> Status,
    add: unsafe extern "C" fn(Program, *const c_char, usize, *const c_char) -> Status,
    verify: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> Status,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> Status,
    result_size: unsafe extern "C" fn(Program, *mut usize) -> Status,
    result: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    log_size: unsafe extern "C" fn(Program, *mut usize) -> Status,
    log: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    error_string: unsafe extern "C" fn(Status) -> *const c_char,
}

/// libNVVM, loaded.
pub struct Nvvm {
    functions: Functions,
    path: PathBuf,
    /// Keeps the functions where they are.
    _library: Library,
}

impl fmt::Debug for Nvvm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nvvm").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Why libNVVM made no PTX.
#[derive(Debug)]
#[non_exhaustive]
pub enum NvvmError {
    /// The library was not found.
    Missing,
    /// The library that was named or found will not do.
    Unusable {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The library knows no such processor.
    UnknownArch {
        /// The processor.
        arch: String,
    },
    /// The library reads the IR of another LLVM for that processor.
    OtherLlvm {
        /// The processor.
        arch: String,
        /// Major version of the LLVM whose IR it reads.
        reads: String,
        /// Version of the LLVM inside the compiler.
        written: String,
    },
    /// The library refused the module.
    Refused {
        /// What it was to do: a verb.
        step: &'static str,
        /// What it said, in one line.
        why: String,
    },
}

impl fmt::Display for NvvmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => write!(
                f,
                "no libNVVM (libnvvm.so.4) in $CUDA_HOME/nvvm/lib64, $CUDA_PATH/nvvm/lib64, /usr/local/cuda/nvvm/lib64, among \
                 Python's packages or where the system's libraries are: {NVVM_INSTALL}, or name one with --nvvm=FILE"
            ),
            Self::Unusable { path, why } => {
                write!(f, "{} is no usable libNVVM: {why}; {NVVM_INSTALL} brings one", path.display())
            }
            Self::UnknownArch { arch } => {
                write!(f, "this libNVVM knows no processor {arch}: --arch {NVVM_ARCH} or later")
            }
            Self::OtherLlvm { arch, reads, written } => write!(
                f,
                "libNVVM reads the IR of LLVM {reads} for {arch}, and the compiler has LLVM {written}: --arch {NVVM_ARCH} or \
                 later, or a newer libNVVM ({NVVM_INSTALL})"
            ),
            Self::Refused { step, why } => write!(f, "libNVVM cannot {step} the module: {why}"),
        }
    }
}

impl Error for NvvmError {}

impl Nvvm {
    /// Loads the library that is named, or the first that is found.
    ///
    /// # Errors
    /// [`NvvmError::Missing`] if none is found, [`NvvmError::Unusable`] if the one there cannot be loaded.
    pub fn find(named: Option<&Path>) -> Result<Self, NvvmError> {
        if let Some(path) = named {
            return Self::load(path);
        }
        let homes = crate::places::cuda_homes().map(|home| home.join("nvvm/lib64"));
        // The packages for CUDA 13 share a folder; that for CUDA 12 has one of its own.
        let inside = ["nvidia/cu13/lib", "nvidia/cuda_nvcc/nvvm/lib64"];
        let packages = crate::places::python_packages();
        let packages = packages.iter().flat_map(|package| inside.map(|folder| package.join(folder)));
        let files = homes.chain(packages).flat_map(|folder| NAMES.map(|name| folder.join(name)));
        if let Some(file) = files.into_iter().find(|file| file.is_file()) {
            return Self::load(&file);
        }
        // What the loader finds by itself.
        match Self::load(Path::new(NAMES[0])) {
            Err(NvvmError::Unusable { .. }) => Err(NvvmError::Missing),
            found => found,
        }
    }

    fn load(path: &Path) -> Result<Self, NvvmError> {
        let unusable = |why: libloading::Error| {
            // What the system said stands behind the error.
            let why = why.source().map_or_else(|| why.to_string(), ToString::to_string);
            NvvmError::Unusable { path: path.to_path_buf(), why }
        };
        // SAFETY: NVIDIA's library, or the one that the caller named to be loaded: what it does when it is loaded is what
        // was asked for.
        let library = unsafe { Library::new(path) }.map_err(unusable)?;
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: the type of the field is that of the function in `nvvm.h`.
                *unsafe { library.get($name) }.map_err(unusable)?
            };
        }
        let functions = Functions {
            ir_version: function!(c"nvvmIRVersion"),
            // SAFETY: as above.
            llvm_version: unsafe { library.get(c"nvvmLLVMVersion") }.ok().map(|function| *function),
            create: function!(c"nvvmCreateProgram"),
            destroy: function!(c"nvvmDestroyProgram"),
            add: function!(c"nvvmAddModuleToProgram"),
            verify: function!(c"nvvmVerifyProgram"),
            compile: function!(c"nvvmCompileProgram"),
            result_size: function!(c"nvvmGetCompiledResultSize"),
            result: function!(c"nvvmGetCompiledResult"),
            log_size: function!(c"nvvmGetProgramLogSize"),
            log: function!(c"nvvmGetProgramLog"),
            error_string: function!(c"nvvmGetErrorString"),
        };
        Ok(Self { functions, path: path.to_path_buf(), _library: library })
    }

    /// Where the library lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Refuses a processor for which the library reads the IR of an older LLVM than `llvm`, such as `22.1.8`.
    pub(super) fn reads(&self, arch: &str, llvm: &str) -> Result<(), NvvmError> {
        let major = |version: &str| version.split('.').next().and_then(|major| major.parse::<c_int>().ok());
        let other = |reads: String| NvvmError::OtherLlvm { arch: arch.to_owned(), reads, written: llvm.to_owned() };
        let Some(llvm_version) = self.functions.llvm_version else { return Err(other("7, being of CUDA 12,".into())) };
        let mut reads = 0;
        let virtual_arch = c_string(&virtual_arch(arch))?;
        // SAFETY: a string that ends, and room for a number.
        if unsafe { llvm_version(virtual_arch.as_ptr(), &raw mut reads) } != 0 {
            return Err(NvvmError::UnknownArch { arch: arch.to_owned() });
        }
        if major(llvm).is_none_or(|written| written > reads) { Err(other(reads.to_string())) } else { Ok(()) }
    }

    /// Makes PTX of a module as rustc writes it (`--emit=llvm-ir`).
    pub(super) fn compile(&self, ir: &str, arch: &str) -> Result<String, NvvmError> {
        let mut version = [0; 4];
        let [major, minor, debug_major, debug_minor] = &mut version;
        // SAFETY: room for four numbers.
        let status = unsafe { (self.functions.ir_version)(major, minor, debug_major, debug_minor) };
        self.done("name its IR for", status, None)?;
        let ir = adapt(ir, version);

        let program = Owned::new(self)?;
        // SAFETY: a program, so many bytes, and a string that ends. The library copies both.
        let status = unsafe { (self.functions.add)(program.handle, ir.as_ptr().cast(), ir.len(), c"k2k".as_ptr()) };
        self.done("read", status, Some(&program))?;
        let arch = c_string(&format!("-arch={}", virtual_arch(arch)))?;
        // A product and a sum are two roundings in Rust; the library would make one of them.
        let options = [arch.as_ptr(), c"-fma=0".as_ptr()];
        let len = options.len() as c_int;
        // SAFETY: a program with a module, and so many options: strings that end.
        let status = unsafe { (self.functions.verify)(program.handle, len, options.as_ptr()) };
        self.done("verify", status, Some(&program))?;
        // SAFETY: as above.
        let status = unsafe { (self.functions.compile)(program.handle, len, options.as_ptr()) };
        self.done("compile", status, Some(&program))?;
        program.text(self.functions.result_size, self.functions.result)
    }

    /// Turns the library's answer into an error, with what is in the program's log.
    fn done(&self, step: &'static str, status: Status, program: Option<&Owned<'_>>) -> Result<(), NvvmError> {
        if status == 0 {
            return Ok(());
        }
        let log = program.and_then(|it| it.text(self.functions.log_size, self.functions.log).ok()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let why = if lines.is_empty() {
            // SAFETY: the library has a text for every number, which stays; it is null or ends.
            let name = unsafe { (self.functions.error_string)(status).as_ref().map(|text| CStr::from_ptr(text)) };
            name.map_or_else(|| format!("status {status}"), |name| name.to_string_lossy().into_owned())
        } else {
            lines.join("; ")
        };
        Err(NvvmError::Refused { step, why })
    }
}

/// A program of the library's, which goes when it is dropped.
struct Owned<'n> {
    nvvm: &'n Nvvm,
    handle: Program,
}

impl<'n> Owned<'n> {
    fn new(nvvm: &'n Nvvm) -> Result<Self, NvvmError> {
        let mut handle = ptr::null_mut();
        // SAFETY: room for a handle.
        let status = unsafe { (nvvm.functions.create)(&raw mut handle) };
        nvvm.done("make room for", status, None)?;
        Ok(Self { nvvm, handle })
    }

    /// A text of the program's: asks how long it is, then for its bytes, the last of which is 0.
    fn text(
        &self,
        size: unsafe extern "C" fn(Program, *mut usize) -> Status,
        text: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    ) -> Result<String, NvvmError> {
        let mut len = 0;
        // SAFETY: a program, and room for a number.
        self.nvvm.done("return", unsafe { size(self.handle, &raw mut len) }, None)?;
        let mut bytes = vec![0_u8; len];
        // SAFETY: a program, and room for as many bytes as it said.
        self.nvvm.done("return", unsafe { text(self.handle, bytes.as_mut_ptr().cast()) }, None)?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(len);
        Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }
}

impl Drop for Owned<'_> {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and used by nothing any more.
        unsafe { (self.nvvm.functions.destroy)(&raw mut self.handle) };
    }
}

/// `compute_100` for `sm_100`.
fn virtual_arch(arch: &str) -> String {
    format!("compute_{}", arch.trim_start_matches("sm_"))
}

fn c_string(text: &str) -> Result<CString, NvvmError> {
    CString::new(text).map_err(|why| NvvmError::Refused { step: "take the options for", why: why.to_string() })
}

/// rustc's IR as libNVVM takes it:
///
/// - the data layout is libNVVM's;
/// - the version of the IR that libNVVM reads is named;
/// - loops stay as rustc's LLVM left them. libNVVM would write out loops over 16 inboxes, one within another, which takes
///   it minutes and gigabytes.
fn adapt(ir: &str, [major, minor, debug_major, debug_minor]: [c_int; 4]) -> String {
    let numbers = ir.lines().filter_map(|line| line.strip_prefix('!')?.split_once(" = ")?.0.parse::<u64>().ok());
    let version = numbers.max().map_or(0, |last| last + 1);
    let (rolled, property) = (version + 1, version + 2);
    let mut text = String::with_capacity(ir.len() + ir.len() / 8);
    for line in ir.lines() {
        // Writing to a string does not fail.
        let _ = if line.starts_with("target datalayout = ") {
            writeln!(text, "target datalayout = \"{DATA_LAYOUT}\"")
        } else if line.trim_start().starts_with("br ") && !line.contains("!llvm.loop") {
            // Only the branch at a loop's end counts; on any other, this says nothing.
            writeln!(text, "{line}, !llvm.loop !{rolled}")
        } else {
            writeln!(text, "{line}")
        };
    }
    let _ = writeln!(
        text,
        "!nvvmir.version = !{{!{version}}}\n\
         !{version} = !{{i32 {major}, i32 {minor}, i32 {debug_major}, i32 {debug_minor}}}\n\
         !{rolled} = distinct !{{!{rolled}, !{property}}}\n\
         !{property} = !{{!\"llvm.loop.unroll.disable\"}}"
    );
    text
}

/// The library's release, such as `13.5.37`, which stands in a comment of the PTX.
pub(super) fn release(ptx: &str) -> &str {
    let comment = ptx.lines().find_map(|line| line.strip_prefix("// Cuda compilation tools, "));
    comment.and_then(|words| words.rsplit_once(" V")).map_or("of an unknown version", |(_, version)| version.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    const IR: &str = "target datalayout = \"e-i64:64\"\ntarget triple = \"nvptx64-nvidia-cuda\"\n\
        define void @f() {\n  br label %a\na:\n  br i1 %p, label %a, label %b, !llvm.loop !7\nb:\n  ret void\n}\n\
        !llvm.module.flags = !{!3}\n!3 = !{i32 1}\n!7 = distinct !{!7}\n";

    #[test]
    fn ir_gets_layout_version_and_loops_that_stay() {
        let text = adapt(IR, [2, 0, 3, 2]);
        let expected = format!(
            "target datalayout = \"{DATA_LAYOUT}\"\ntarget triple = \"nvptx64-nvidia-cuda\"\n\
             define void @f() {{\n  br label %a, !llvm.loop !9\na:\n  br i1 %p, label %a, label %b, !llvm.loop !7\nb:\n  ret void\n}}\n\
             !llvm.module.flags = !{{!3}}\n!3 = !{{i32 1}}\n!7 = distinct !{{!7}}\n\
             !nvvmir.version = !{{!8}}\n!8 = !{{i32 2, i32 0, i32 3, i32 2}}\n\
             !9 = distinct !{{!9, !10}}\n!10 = !{{!\"llvm.loop.unroll.disable\"}}\n"
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn release_is_read_from_the_comment() {
        let head = "//\n// Compiler Build ID: CL-39125733\n// Cuda compilation tools, release 13.5, V13.5.37\n";
        assert_eq!(release(head), "13.5.37");
        assert_eq!(release(".version 7.0"), "of an unknown version");
        assert_eq!(virtual_arch("sm_100a"), "compute_100a");
    }

    #[test]
    fn file_that_is_no_library_is_named() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let Err(why @ NvvmError::Unusable { .. }) = Nvvm::find(Some(&file)) else { panic!() };
        let text = why.to_string();
        assert!(text.contains("Cargo.toml is no usable libNVVM") && text.contains(NVVM_INSTALL), "{text}");
        // A library, and not this one.
        let Err(NvvmError::Unusable { why, .. }) = Nvvm::find(Some(Path::new("libc.so.6"))) else { panic!() };
        assert!(why.contains("nvvmIRVersion"), "{why}");
    }
}
