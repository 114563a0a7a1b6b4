// SPDX-License-Identifier: Apache-2.0
//! An HTTP server on tokio whose handlers block their worker. Usage: tokio_server PORT WORKERS STALL_MS, on the
//! current-thread runtime with 0 WORKERS; /truth gives its log, times in CLOCK_MONOTONIC.
use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Mutex;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

extern "C" {
    fn clock_gettime(clock: i32, time: *mut Timespec) -> i32;
    fn gettid() -> i32;
    fn dlsym(handle: *mut c_void, name: *const i8) -> *mut c_void;
}

const CLOCK_MONOTONIC: i32 = 1;

static DONE: AtomicU64 = AtomicU64::new(0);
static TRUTHS: Mutex<String> = Mutex::new(String::new());

fn now_ns() -> i64 {
    let mut time = Timespec { seconds: 0, nanoseconds: 0 };
    unsafe { clock_gettime(CLOCK_MONOTONIC, &mut time) };
    time.seconds * 1_000_000_000 + time.nanoseconds
}

/// Runs `body`, a function of that name which stalls at that line, and logs it.
fn stall(kind: &str, function: &str, line: u32, body: impl FnOnce()) {
    let start = now_ns();
    body();
    let end = now_ns();
    let (pid, tid) = (std::process::id(), unsafe { gettid() });
    TRUTHS.lock().unwrap().push_str(&format!(
        "{{\"start_ns\":{start},\"end_ns\":{end},\"kind\":\"{kind}\",\"function\":\"{function}\",\
         \"file\":\"main.rs\",\"line\":{line},\"pid\":{pid},\"tid\":{tid}}}\n"
    ));
}

const SLEEPS_AT: u32 = line!() + 4;

#[inline(never)]
fn call_payment(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
    DONE.fetch_add(ms, Ordering::Relaxed); // or the call above would be a jump, without a frame of this function
}

const COMPUTES_AT: u32 = line!() + 6;

#[inline(never)]
fn hash_password(ms: u64) {
    let (end, mut hash) = (now_ns() + ms as i64 * 1_000_000, 1u64);
    while now_ns() < end {
        for i in 0..20_000u64 { hash = (hash ^ i).wrapping_mul(0x100000001b3); }
    }
    DONE.fetch_add(hash, Ordering::Relaxed);
}

async fn serve(mut connection: TcpStream, stall_ms: u64) {
    let mut request = [0u8; 4096];
    let length = connection.read(&mut request).await.unwrap_or(0);
    let text = String::from_utf8_lossy(&request[..length]).into_owned();
    let body = match text.split(' ').nth(1).unwrap_or("") {
        "/sleep" => {
            stall("sleep", "call_payment", SLEEPS_AT, || call_payment(stall_ms));
            "ok".to_string()
        }
        "/cpu" => {
            stall("cpu", "hash_password", COMPUTES_AT, || hash_password(stall_ms));
            "ok".to_string()
        }
        "/truth" => TRUTHS.lock().unwrap().clone(),
        _ => "ok".to_string(),
    };
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let _ = connection.write_all((head + &body).as_bytes()).await;
}

/// A function of the library that notes when threads have nothing to do (tests/truth/iterations.c), where that is
/// preloaded.
fn preloaded(name: &[u8]) -> Option<extern "C" fn()> {
    let found = unsafe { dlsym(std::ptr::null_mut(), name.as_ptr() as *const i8) };
    if found.is_null() { None } else { Some(unsafe { std::mem::transmute(found) }) }
}

fn main() {
    let number = |i: usize| std::env::args().nth(i).and_then(|text| text.parse::<u64>().ok());
    let port = number(1).expect("PORT") as u16;
    let workers = number(2).expect("WORKERS") as usize;
    let stall_ms = number(3).expect("STALL_MS");
    let mut builder = match workers {
        0 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if workers > 0 {
        builder.worker_threads(workers);
    }
    if let (Some(before), Some(after)) = (preloaded(b"truth_before_park\0"), preloaded(b"truth_after_park\0")) {
        builder.on_thread_park(move || before()).on_thread_unpark(move || after());
    }
    let runtime = builder.enable_io().build().expect("a runtime");
    runtime.block_on(async move {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a socket");
        loop {
            if let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(serve(connection, stall_ms));
            }
        }
    });
}
