//! The session part of the host's PAM stack for `su` (pam(3)). The library is loaded in the process
//! that opens the first session: hosts without PAM do not need it, and an idle agent does not hold
//! it.
#![allow(unsafe_code, reason = "libpam is a C library")]

use std::ffi::{CStr, CString, OsStr, OsString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use super::Opened;

const LIBRARY: &CStr = c"libpam.so.0";

/// The name of the stack.
const SERVICE: &CStr = c"su";

/// The files that may hold a host's stack for `su`. Without one, PAM uses the stack for unknown
/// services, which denies everything.
const STACKS: [&str; 3] = ["/etc/pam.d/su", "/usr/lib/pam.d/su", "/usr/etc/pam.d/su"];

const SUCCESS: c_int = 0;
const RUSER: c_int = 8;
const ESTABLISH_CRED: c_int = 2;
const DELETE_CRED: c_int = 4;
/// Suppresses the message of the day, which nobody would read.
const SILENT: c_int = 0x8000;
const ERROR_MSG: c_int = 3;
const TEXT_INFO: c_int = 4;
const BUF_ERR: c_int = 5;
const CONV_ERR: c_int = 19;
/// The largest number of messages in one call of a conversation (`PAM_MAX_NUM_MSG`).
const MAX_MESSAGES: c_int = 32;

#[repr(C)]
struct Message {
    style: c_int,
    text: *const c_char,
}

#[repr(C)]
struct Response {
    text: *mut c_char,
    unused: c_int,
}

type Converse =
    unsafe extern "C" fn(c_int, *mut *const Message, *mut *mut Response, *mut c_void) -> c_int;

#[repr(C)]
struct Conversation {
    converse: Converse,
    data: *mut c_void,
}

type Handle = *mut c_void;
type WithFlags = unsafe extern "C" fn(Handle, c_int) -> c_int;
type Start =
    unsafe extern "C" fn(*const c_char, *const c_char, *const Conversation, *mut Handle) -> c_int;
type SetItem = unsafe extern "C" fn(Handle, c_int, *const c_void) -> c_int;
type GetEnvironment = unsafe extern "C" fn(Handle) -> *mut *mut c_char;
type Explain = unsafe extern "C" fn(Handle, c_int) -> *const c_char;

/// The functions of the library.
struct Library {
    start: Start,
    set_item: SetItem,
    setcred: WithFlags,
    open_session: WithFlags,
    close_session: WithFlags,
    getenvlist: GetEnvironment,
    strerror: Explain,
    end: WithFlags,
}

impl Library {
    /// `None` on a host without PAM.
    fn load() -> Option<Self> {
        // SAFETY: the library is the system's own; it is never unloaded, because modules may leave
        // something behind.
        let library = unsafe { libc::dlopen(LIBRARY.as_ptr(), libc::RTLD_NOW) };
        if library.is_null() {
            return None;
        }
        let symbol = |name: &CStr| {
            // SAFETY: the library is loaded, and the name ends with a zero.
            let found = unsafe { libc::dlsym(library, name.as_ptr()) };
            (!found.is_null()).then_some(found)
        };
        // SAFETY: the types are those that pam_appl.h declares.
        unsafe {
            use std::mem::transmute;
            Some(Self {
                start: transmute::<*mut c_void, Start>(symbol(c"pam_start")?),
                set_item: transmute::<*mut c_void, SetItem>(symbol(c"pam_set_item")?),
                setcred: transmute::<*mut c_void, WithFlags>(symbol(c"pam_setcred")?),
                open_session: transmute::<*mut c_void, WithFlags>(symbol(c"pam_open_session")?),
                close_session: transmute::<*mut c_void, WithFlags>(symbol(c"pam_close_session")?),
                getenvlist: transmute::<*mut c_void, GetEnvironment>(symbol(c"pam_getenvlist")?),
                strerror: transmute::<*mut c_void, Explain>(symbol(c"pam_strerror")?),
                end: transmute::<*mut c_void, WithFlags>(symbol(c"pam_end")?),
            })
        }
    }
}

/// A session that is open.
pub(super) struct Pam {
    library: Library,
    handle: Handle,
    /// The complaints of modules; the conversation writes to it as long as there is a handle.
    complaints: *mut Vec<String>,
}

impl Pam {
    /// Opens the session that `su` opens for `user`. `None` if the host has no stack for it; an
    /// error with the reason if `su` would refuse.
    pub(super) fn open(user: &str) -> Result<Option<(Self, Opened)>, String> {
        if !STACKS.iter().any(|stack| Path::new(stack).exists()) {
            return Ok(None);
        }
        let (Some(library), Ok(name)) = (Library::load(), CString::new(user)) else {
            return Ok(None);
        };
        let refused = |what: &str, reason: String| {
            format!(
                "{what} for the user {user}: {reason}. su would refuse, too; correct the session modules in /etc/pam.d/su, \
                 or set runas_session: false in the agent's configuration to run scripts without a session"
            )
        };
        let complaints = Box::into_raw(Box::<Vec<String>>::default());
        let conversation = Conversation {
            converse,
            data: complaints.cast(),
        };
        let mut handle = ptr::null_mut();
        // SAFETY: the strings and the conversation live during the call, which copies them; the
        // conversation's data live as long as the handle.
        let started = unsafe {
            (library.start)(
                SERVICE.as_ptr(),
                name.as_ptr(),
                &raw const conversation,
                &raw mut handle,
            )
        };
        if started != SUCCESS {
            // SAFETY: no handle uses it, and it is freed once.
            drop(unsafe { Box::from_raw(complaints) });
            return Err(refused("PAM cannot be used", format!("error {started}")));
        }
        let pam = Self {
            library,
            handle,
            complaints,
        };
        // SAFETY: the handle is open, and PAM copies the item.
        unsafe { (pam.library.set_item)(handle, RUSER, c"root".as_ptr().cast()) };
        // Modules may add groups or tickets here. Nobody was authenticated, so a module may have
        // none to give. SAFETY: the handle is open.
        unsafe { (pam.library.setcred)(handle, ESTABLISH_CRED | SILENT) };
        // SAFETY: the handle is open.
        let opened = unsafe { (pam.library.open_session)(handle, SILENT) };
        if opened != SUCCESS {
            let mut reason = pam.error(opened);
            pam.take_complaints()
                .iter()
                .for_each(|complaint| reason.push_str(&format!("; {complaint}")));
            pam.end(opened);
            return Err(refused("the PAM session of su cannot be opened", reason));
        }
        let environment = pam.environment();
        let warnings = pam.take_complaints();
        let warnings = warnings
            .iter()
            .map(|text| format!("the PAM session of the user {user}: {text}"));
        let opened = Opened {
            environment,
            warnings: warnings.collect(),
        };
        Ok(Some((pam, opened)))
    }

    pub(super) fn close(self) {
        // SAFETY: the session is open.
        let closed = unsafe { (self.library.close_session)(self.handle, SILENT) };
        self.end(closed);
    }

    fn end(self, status: c_int) {
        // SAFETY: the handle is open, and used by nobody afterwards; then nobody uses the
        // complaints.
        unsafe {
            (self.library.setcred)(self.handle, DELETE_CRED | SILENT);
            (self.library.end)(self.handle, status);
            drop(Box::from_raw(self.complaints));
        }
    }

    fn environment(&self) -> Vec<(OsString, OsString)> {
        let mut variables = Vec::new();
        // SAFETY: the list, which is the caller's to free, ends with a null pointer, and each
        // string with a zero.
        unsafe {
            let list = (self.library.getenvlist)(self.handle);
            if list.is_null() {
                return variables;
            }
            let mut place = list;
            while !(*place).is_null() {
                let text = OsStr::from_bytes(CStr::from_ptr(*place).to_bytes());
                if let Some(at) = text.as_bytes().iter().position(|byte| *byte == b'=') {
                    let (name, value) = (&text.as_bytes()[..at], &text.as_bytes()[at + 1..]);
                    variables.push((
                        OsStr::from_bytes(name).into(),
                        OsStr::from_bytes(value).into(),
                    ));
                }
                libc::free((*place).cast());
                place = place.add(1);
            }
            libc::free(list.cast());
        }
        variables
    }

    fn error(&self, number: c_int) -> String {
        // SAFETY: the handle is open; the string is a constant of the library.
        let text = unsafe { (self.library.strerror)(self.handle, number) };
        if text.is_null() {
            return format!("error {number}");
        }
        // SAFETY: as above.
        unsafe { CStr::from_ptr(text) }
            .to_string_lossy()
            .into_owned()
    }

    fn take_complaints(&self) -> Vec<String> {
        // SAFETY: the only other user is the conversation, which runs only within calls of the
        // library; none is in progress.
        std::mem::take(unsafe { &mut *self.complaints })
    }
}

/// Collects errors, ignores information, and answers no question.
unsafe extern "C" fn converse(
    count: c_int,
    messages: *mut *const Message,
    responses: *mut *mut Response,
    data: *mut c_void,
) -> c_int {
    let Some(number) = usize::try_from(count)
        .ok()
        .filter(|_| (1..=MAX_MESSAGES).contains(&count))
    else {
        return CONV_ERR;
    };
    // SAFETY: PAM passes as many messages as it states, and the session's own data. The module
    // frees the answers.
    unsafe {
        let complaints = &mut *data.cast::<Vec<String>>();
        for index in 0..number {
            let message = &**messages.add(index);
            match message.style {
                ERROR_MSG if !message.text.is_null() => {
                    complaints.push(
                        CStr::from_ptr(message.text)
                            .to_string_lossy()
                            .trim()
                            .to_owned(),
                    );
                }
                ERROR_MSG | TEXT_INFO => {}
                _ => return CONV_ERR,
            }
        }
        let answers = libc::calloc(number, size_of::<Response>()).cast::<Response>();
        if answers.is_null() {
            return BUF_ERR;
        }
        *responses = answers;
    }
    SUCCESS
}
