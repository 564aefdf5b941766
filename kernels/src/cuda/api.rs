//! The functions of NVIDIA's driver, as pointers into the library that the probe has opened.
//!
//! `cudarc` names the types, the codes and the signatures, and the compiler checks that those here are its. Its loader
//! is not used: it may find another library than the probe did, and panics where a function is missing; and its calls
//! give the code as an enum, for which a code that it does not know is undefined behaviour. Here a code is the integer
//! that it is.

use std::{
    ffi::{CStr, c_char, c_int, c_uint, c_void},
    fmt, ptr,
};

use cudarc::driver::sys::{
    self, CUcontext, CUdevice, CUdeviceptr, CUevent, CUfunction, CUfunction_attribute, CUmemPool_attribute,
    CUmemoryPool, CUmodule, CUstream, CUtensorMap, CUtensorMapDataType, CUtensorMapFloatOOBfill,
    CUtensorMapInterleave, CUtensorMapL2promotion, CUtensorMapSwizzle,
};
use libloading::Library;

use super::{Failed, probe::NoGpu};

/// `CUresult`
type Code = i32;

macro_rules! api {
    ($($field:ident = $name:ident($($type:ty),* $(,)?);)*) => {
        /// A pointer to each function that is used.
        pub(super) struct Api {
            $(pub(super) $field: unsafe extern "C" fn($($type),*) -> Code,)*
        }

        impl Api {
            /// The functions of `library`, which stays loaded.
            ///
            /// # Errors
            /// One is missing.
            pub(super) fn load(library: &'static Library) -> Result<Api, NoGpu> {
                Ok(Api { $(
                    $field: {
                        // SAFETY: the signature is that of cuda.h, as `signatures` checks
                        let function = unsafe { library.get(stringify!($name).as_bytes()) };
                        *function.map_err(|_| NoGpu::NoFunction(stringify!($name)))?
                    },
                )* })
            }
        }

        /// Nothing here compiles unless the types above are those of `cudarc`.
        mod signatures {
            use super::*;

            type Code = sys::CUresult;
            $(const _: unsafe fn($($type),*) -> Code = sys::$name;)*
        }
    };
}

api! {
    device_get = cuDeviceGet(*mut CUdevice, c_int);
    retain_context = cuDevicePrimaryCtxRetain(*mut CUcontext, CUdevice);
    set_context = cuCtxSetCurrent(CUcontext);
    default_pool = cuDeviceGetDefaultMemPool(*mut CUmemoryPool, CUdevice);
    set_pool_attribute = cuMemPoolSetAttribute(CUmemoryPool, CUmemPool_attribute, *mut c_void);
    pool_attribute = cuMemPoolGetAttribute(CUmemoryPool, CUmemPool_attribute, *mut c_void);
    create_stream = cuStreamCreate(*mut CUstream, c_uint);
    synchronize = cuStreamSynchronize(CUstream);
    memory = cuMemGetInfo_v2(*mut usize, *mut usize);
    allocate = cuMemAllocAsync(*mut CUdeviceptr, usize, CUstream);
    free = cuMemFreeAsync(CUdeviceptr, CUstream);
    allocate_host = cuMemHostAlloc(*mut *mut c_void, usize, c_uint);
    copy_to_device = cuMemcpyHtoDAsync_v2(CUdeviceptr, *const c_void, usize, CUstream);
    copy_to_host = cuMemcpyDtoHAsync_v2(*mut c_void, CUdeviceptr, usize, CUstream);
    copy_on_device = cuMemcpyDtoDAsync_v2(CUdeviceptr, CUdeviceptr, usize, CUstream);
    load_module = cuModuleLoadData(*mut CUmodule, *const c_void);
    function = cuModuleGetFunction(*mut CUfunction, CUmodule, *const c_char);
    set_function_attribute = cuFuncSetAttribute(CUfunction, CUfunction_attribute, c_int);
    encode_map = cuTensorMapEncodeTiled(
        *mut CUtensorMap,
        CUtensorMapDataType,
        u32,
        *mut c_void,
        *const u64,
        *const u64,
        *const u32,
        *const u32,
        CUtensorMapInterleave,
        CUtensorMapSwizzle,
        CUtensorMapL2promotion,
        CUtensorMapFloatOOBfill,
    );
    launch = cuLaunchKernel(
        CUfunction,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        CUstream,
        *mut *mut c_void,
        *mut *mut c_void,
    );
    create_event = cuEventCreate(*mut CUevent, c_uint);
    record_event = cuEventRecord(CUevent, CUstream);
    wait_for_event = cuEventSynchronize(CUevent);
    milliseconds = cuEventElapsedTime_v2(*mut f32, CUevent, CUevent);
    destroy_event = cuEventDestroy_v2(CUevent);
    error_name = cuGetErrorName(Code, *mut *const c_char);
}

impl Api {
    /// What the code of a call means.
    ///
    /// # Errors
    /// It is not that of success.
    pub(super) fn checked(&self, what: impl fmt::Display, code: i32) -> Result<(), Failed> {
        if code == 0 {
            return Ok(());
        }
        let failed = Failed::new(what, format_args!("{} ({code})", self.name(code)));
        Err(if code == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY as i32 { failed.for_memory() } else { failed })
    }

    fn name(&self, code: i32) -> String {
        let mut name = ptr::null();
        // SAFETY: the pointer is there until the call returns; the function knows what to do with any code
        let known = unsafe { (self.error_name)(code, &mut name) };
        if known != 0 || name.is_null() {
            return "an error without a name".to_string();
        }
        // SAFETY: a text of the driver's, which ends and stays
        unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
    }
}

/// Whether it is one of the errors after which the context cannot be used again.
pub(super) fn is_final(code: i32) -> bool {
    use sys::CUresult as Result;
    const FINAL: [Result; 13] = [
        Result::CUDA_ERROR_ILLEGAL_ADDRESS,
        Result::CUDA_ERROR_LAUNCH_FAILED,
        Result::CUDA_ERROR_LAUNCH_TIMEOUT,
        Result::CUDA_ERROR_MISALIGNED_ADDRESS,
        Result::CUDA_ERROR_ILLEGAL_INSTRUCTION,
        Result::CUDA_ERROR_INVALID_ADDRESS_SPACE,
        Result::CUDA_ERROR_INVALID_PC,
        Result::CUDA_ERROR_HARDWARE_STACK_ERROR,
        Result::CUDA_ERROR_ECC_UNCORRECTABLE,
        Result::CUDA_ERROR_ASSERT,
        Result::CUDA_ERROR_NVLINK_UNCORRECTABLE,
        Result::CUDA_ERROR_CONTEXT_IS_DESTROYED,
        Result::CUDA_ERROR_EXTERNAL_DEVICE,
    ];
    FINAL.iter().any(|&one| one as i32 == code)
}
