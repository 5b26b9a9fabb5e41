//! PKCS#7 SignedData through AWS-LC, the library that TLS uses: all foreign calls of this crate are
//! here.
//!
//! An [`Owned`] immediately takes every object that a call allocates; borrowed pointers stay inside
//! the function that asked for them, while their owner lives.
#![allow(unsafe_code, reason = "AWS-LC's PKCS#7 functions have no safe wrapper")]

use std::ffi::{CStr, c_int, c_long};
use std::ptr::{self, NonNull};

use aws_lc_sys as lc;

/// The signed content, and its signers.
#[derive(Debug)]
pub(super) struct Opened {
    pub content: Vec<u8>,
    /// Never empty.
    pub signers: Vec<Signer>,
}

/// A certificate whose signature was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Signer {
    /// The subject's distinguished name, `/CN=…` form.
    pub subject: String,
    /// SHA-256 of the DER form of the public key (SubjectPublicKeyInfo, RFC 5280).
    pub key_sha256: [u8; 32],
}

#[derive(Debug, thiserror::Error)]
pub enum Pkcs7Error {
    #[error("is not PKCS#7 SignedData")]
    NotSigned,
    #[error("carries no content; a detached signature is not enough")]
    Detached,
    #[error("carries no signature with its certificate")]
    NoSigner,
    #[error("has a signature that does not verify ({reason})")]
    BadSignature { reason: String },
    #[error(
        "is signed by {subject} with {what}; expected SHA-256 or better with RSA of at least 2048 bits or ECDSA"
    )]
    Weak { subject: String, what: String },
    #[error("holds no certificate in PEM form")]
    NoAuthority,
    #[error("cannot be opened: the cryptographic library ran out of memory")]
    Memory,
}

/// An object that AWS-LC allocated, freed with its own function.
struct Owned<T> {
    object: NonNull<T>,
    free: unsafe extern "C" fn(*mut T),
}

impl<T> Owned<T> {
    fn new(object: *mut T, free: unsafe extern "C" fn(*mut T)) -> Option<Self> {
        Some(Self {
            object: NonNull::new(object)?,
            free,
        })
    }

    fn as_ptr(&self) -> *mut T {
        self.object.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: `object` came from the allocator that `free` belongs to, and is freed once.
        unsafe { (self.free)(self.object.as_ptr()) }
    }
}

unsafe extern "C" fn free_bio(bio: *mut lc::BIO) {
    // SAFETY: called by `Owned` alone, with a BIO it owns.
    unsafe { lc::BIO_free(bio) };
}

unsafe extern "C" fn free_stack(stack: *mut lc::stack_st_X509) {
    // SAFETY: called by `Owned` alone; the stack's elements belong to the PKCS#7 object and are not
    // freed with it.
    unsafe { lc::OPENSSL_sk_free(stack.cast()) };
}

/// Certificates that a signer may chain to.
pub(super) struct Authorities(Owned<lc::X509_STORE>);

impl Authorities {
    fn none() -> Result<Self, Pkcs7Error> {
        // SAFETY: the function takes nothing and gives a store or null.
        let store = unsafe { lc::X509_STORE_new() };
        Owned::new(store, lc::X509_STORE_free)
            .map(Self)
            .ok_or(Pkcs7Error::Memory)
    }

    /// Reads the certificates in a PEM text, which must contain at least one.
    pub(super) fn read(pem: &[u8]) -> Result<Self, Pkcs7Error> {
        let authorities = Self::none()?;
        // SAFETY: the BIO reads from `pem`, which outlives it; the store takes its own reference to
        // each certificate.
        unsafe {
            let length =
                lc::ossl_ssize_t::try_from(pem.len()).map_err(|_| Pkcs7Error::NoAuthority)?;
            let source = Owned::new(lc::BIO_new_mem_buf(pem.as_ptr().cast(), length), free_bio);
            let source = source.ok_or(Pkcs7Error::Memory)?;
            let mut found = false;
            loop {
                let next =
                    lc::PEM_read_bio_X509(source.as_ptr(), ptr::null_mut(), None, ptr::null_mut());
                let Some(certificate) = Owned::new(next, lc::X509_free) else {
                    break;
                };
                lc::X509_STORE_add_cert(authorities.0.as_ptr(), certificate.as_ptr());
                found = true;
            }
            lc::ERR_clear_error();
            if found {
                Ok(authorities)
            } else {
                Err(Pkcs7Error::NoAuthority)
            }
        }
    }
}

/// Opens SignedData in DER or BER form. Every signature must verify with an enclosed certificate;
/// with `authorities`, every signer must chain to one of them.
pub(super) fn open(data: &[u8], authorities: Option<&Authorities>) -> Result<Opened, Pkcs7Error> {
    // SAFETY: every pointer passed below comes from a live `Owned` or a live slice with its true
    // length, null is passed only where the functions' documentation allows it, and borrowed
    // results do not outlive their owner.
    unsafe {
        lc::ERR_clear_error();
        let mut cursor = data.as_ptr();
        let length = c_long::try_from(data.len()).map_err(|_| Pkcs7Error::NotSigned)?;
        let parsed = lc::d2i_PKCS7(ptr::null_mut(), &mut cursor, length as _);
        let pkcs7 = Owned::new(parsed, lc::PKCS7_free).ok_or(Pkcs7Error::NotSigned)?;
        if lc::PKCS7_type_is_signed(pkcs7.as_ptr()) != 1 {
            return Err(Pkcs7Error::NotSigned);
        }
        if lc::PKCS7_is_detached(pkcs7.as_ptr()) != 0 {
            return Err(Pkcs7Error::Detached);
        }
        let signers = lc::PKCS7_get0_signers(pkcs7.as_ptr(), ptr::null_mut(), 0);
        let signers = Owned::new(signers, free_stack).ok_or(Pkcs7Error::NoSigner)?;
        let described = described_signers(&pkcs7, &signers)?;

        let nobody = Authorities::none()?;
        let (store, flags) = match authorities {
            Some(Authorities(store)) => (store, 0),
            None => (&nobody.0, lc::PKCS7_NOVERIFY),
        };
        let content =
            Owned::new(lc::BIO_new(lc::BIO_s_mem()), free_bio).ok_or(Pkcs7Error::Memory)?;
        let verified = lc::PKCS7_verify(
            pkcs7.as_ptr(),
            ptr::null_mut(),
            store.as_ptr(),
            ptr::null_mut(),
            content.as_ptr(),
            flags as c_int,
        );
        if verified != 1 {
            return Err(Pkcs7Error::BadSignature {
                reason: last_error(),
            });
        }
        let (mut bytes, mut length) = (ptr::null(), 0);
        if lc::BIO_mem_contents(content.as_ptr(), &mut bytes, &mut length) != 1 {
            return Err(Pkcs7Error::Memory);
        }
        let content = if length == 0 {
            Vec::new()
        } else {
            std::slice::from_raw_parts(bytes, length).to_vec()
        };
        Ok(Opened {
            content,
            signers: described,
        })
    }
}

/// # Safety
/// `signers` must be the stack that `PKCS7_get0_signers` made of `pkcs7`.
unsafe fn described_signers(
    pkcs7: &Owned<lc::PKCS7>,
    signers: &Owned<lc::stack_st_X509>,
) -> Result<Vec<Signer>, Pkcs7Error> {
    // SAFETY: both stacks live as long as `pkcs7`; indices stay below the length that was asked
    // for.
    unsafe {
        let infos = lc::PKCS7_get_signer_info(pkcs7.as_ptr());
        let count = lc::OPENSSL_sk_num(signers.as_ptr().cast());
        if count == 0 || infos.is_null() || lc::OPENSSL_sk_num(infos.cast()) != count {
            return Err(Pkcs7Error::NoSigner);
        }
        (0..count)
            .map(|index| {
                let certificate: *mut lc::X509 =
                    lc::OPENSSL_sk_value(signers.as_ptr().cast(), index).cast();
                let info = lc::OPENSSL_sk_value(infos.cast(), index).cast();
                let signer = Signer {
                    subject: subject(certificate),
                    key_sha256: key_digest(certificate)?,
                };
                strong_enough(certificate, info).map_err(|what| Pkcs7Error::Weak {
                    subject: signer.subject.clone(),
                    what,
                })?;
                Ok(signer)
            })
            .collect()
    }
}

/// # Safety
/// Both pointers must be live.
unsafe fn strong_enough(
    certificate: *mut lc::X509,
    info: *mut lc::PKCS7_SIGNER_INFO,
) -> Result<(), String> {
    // SAFETY: the algorithm and its object are lent by `info`, the key by `certificate`; both live
    // in the caller.
    unsafe {
        let mut digest = ptr::null_mut();
        lc::PKCS7_SIGNER_INFO_get0_algs(info, ptr::null_mut(), &mut digest, ptr::null_mut());
        let mut object = ptr::null();
        if !digest.is_null() {
            lc::X509_ALGOR_get0(&mut object, ptr::null_mut(), ptr::null_mut(), digest);
        }
        let digest = if object.is_null() {
            0
        } else {
            lc::OBJ_obj2nid(object)
        };
        if ![lc::NID_sha256, lc::NID_sha384, lc::NID_sha512].contains(&(digest as _)) {
            return Err("a digest weaker than SHA-256".into());
        }
        let key = lc::X509_get0_pubkey(certificate);
        if key.is_null() {
            return Err("an unreadable key".into());
        }
        let (kind, bits) = (lc::EVP_PKEY_id(key), lc::EVP_PKEY_bits(key));
        match kind {
            lc::EVP_PKEY_RSA if bits >= 2048 => Ok(()),
            lc::EVP_PKEY_EC => Ok(()),
            lc::EVP_PKEY_RSA => Err(format!("an RSA key of {bits} bits")),
            _ => Err("a key of another kind".into()),
        }
    }
}

/// # Safety
/// `certificate` must be live.
unsafe fn subject(certificate: *mut lc::X509) -> String {
    let mut text = [0; 512];
    // SAFETY: the name is lent by the certificate; the buffer's true size is passed, and the text
    // is terminated.
    unsafe {
        let name = lc::X509_get_subject_name(certificate);
        if name.is_null()
            || lc::X509_NAME_oneline(name, text.as_mut_ptr(), text.len() as c_int).is_null()
        {
            return "(no name)".into();
        }
        CStr::from_ptr(text.as_ptr())
            .to_string_lossy()
            .chars()
            .filter(|c| !c.is_control())
            .collect()
    }
}

/// # Safety
/// `certificate` must be live.
unsafe fn key_digest(certificate: *mut lc::X509) -> Result<[u8; 32], Pkcs7Error> {
    // SAFETY: `i2d_X509_PUBKEY` allocates when it is given a null target; what it allocated is
    // freed below.
    unsafe {
        let mut der = ptr::null_mut();
        let length = lc::i2d_X509_PUBKEY(lc::X509_get_X509_PUBKEY(certificate), &mut der);
        let Ok(length) = usize::try_from(length) else {
            return Err(Pkcs7Error::NoSigner);
        };
        if der.is_null() || length == 0 {
            return Err(Pkcs7Error::NoSigner);
        }
        let mut digest = [0; 32];
        lc::SHA256(der, length, digest.as_mut_ptr());
        lc::OPENSSL_free(der.cast());
        Ok(digest)
    }
}

fn last_error() -> String {
    let mut text = [0; 256];
    // SAFETY: the buffer's true size is passed, and the function ends the text.
    unsafe {
        let code = lc::ERR_get_error();
        lc::ERR_clear_error();
        lc::ERR_error_string_n(code, text.as_mut_ptr(), text.len());
        let text = CStr::from_ptr(text.as_ptr()).to_string_lossy();
        text.rsplit(':')
            .next()
            .unwrap_or_default()
            .replace('_', " ")
            .to_lowercase()
    }
}
