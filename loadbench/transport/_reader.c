/* A thread that reads sockets with the kernel's receive stamps, so that no arrival waits for Python.
 *
 * Reader.open gives it a socket, Reader.take hands over what came since: pieces of bytes, each with its time. The thread
 * needs no interpreter lock and touches no Python object. It knows as much of HTTP/1.x as tells where a response ends,
 * and wakes Python through an eventfd then, at a connection's end, every SWEEP_NS while anything waits, or when a bound is
 * reached. What it does not understand it hands over at once: the judge of HTTP is the parser in connection.py, which
 * reads the same bytes.
 *
 * One mutex guards all that is shared. The thread holds it for one recvmsg, `look` until its socket is empty or full, and nobody
 * while Python objects are made: then Python may collect garbage, whose finalizers may call any method here, close too.
 */
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000
#endif
#include <Python.h>

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum {
    READ_BYTES = 65536,
    BATCH = 64,                 /* events of one epoll_wait */
    MOST_BYTES = 1 << 20,       /* unread by Python, of one connection: then its socket waits */
    MOST_SEGMENTS = 1 << 14,
    KEPT_BYTES = 1 << 16,       /* larger buffers, of bytes and of segments, are not kept for the next response */
    LINE_BYTES = 128,           /* of a header line: those that matter are shorter, or are handed over at once */
};
static const size_t MOST_TOTAL = (size_t)256 << 20; /* unread of all connections, its segments too, but for one read of each */
static const int64_t SWEEP_NS = 200000000;
/* Woken twice within this, the thread lets so much time pass before it reads again: some of what comes at over 10,000
 * reads a second is then read in one go, which costs it a third less, and the server fewer interruptions. No stamp changes
 * but where one connection's next segment comes within the nap. */
static const int64_t NAP_NS = 100000;
static const int64_t STEP_NS = 1000000; /* both clocks run at one rate: they part by as much when one is set */
static const uint64_t SLICE_NS = 100000; /* the shortest that Linux grants */
static const uint64_t STOP = UINT64_MAX;
static const uint32_t UNKNOWN = UINT32_MAX, NEVER = UINT32_MAX - 1; /* of plain_from */

/* -- where a response ends ------------------------------------------------------------------------------------------ */

typedef enum {
    IDLE,        /* nothing was asked: whatever comes is Python's */
    HEAD,        /* status line and headers */
    COUNTED,     /* a body of `left` bytes more */
    UNTIL_CLOSE, /* a body that ends with the connection */
    SIZE,        /* the line of a chunk's size; `line` counts its bytes */
    DATA,        /* `left` bytes of a chunk and its CR LF */
    TRAILER,     /* lines after the last chunk */
    DONE,
    ODD,         /* not understood: each read is Python's at once */
} State;

typedef struct {
    State state;
    uint64_t left;
    uint32_t length;   /* of the present line, CR and LF not counted */
    bool bare;         /* the present line has a CR that is not its end */
    bool chunked, counted, coded;
    int status;        /* 0 before the status line */
    char line[LINE_BYTES];
} Frame;

/* A value of decimal digits alone; -1 where it is none, or too large. */
static int64_t decimal(const char *text) {
    int64_t value = 0;
    size_t n = 0;
    for (; text[n] >= '0' && text[n] <= '9'; n++) {
        if (n == 17) return -1;
        value = value * 10 + (text[n] - '0');
    }
    return n && !text[n] ? value : -1;
}

static bool is_hex(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static State header(Frame *f) {
    static const char *const meant[] = {"transfer-encoding:", "content-length:", "content-encoding:"};
    for (int i = 0; i < 3; i++) {
        size_t n = strlen(meant[i]);
        if (strncasecmp(f->line, meant[i], n)) continue;
        char *value = f->line + n, *end = f->line + f->length;
        while (*value == ' ' || *value == '\t') value++;
        while (end > value && (end[-1] == ' ' || end[-1] == '\t')) *--end = 0;
        if (i == 2) {
            f->coded = true;
            return HEAD;
        }
        if (f->chunked || f->counted) return ODD; /* twice, or both: nothing to rely on */
        if (i == 0) {
            f->chunked = true;
            return strcasecmp(value, "chunked") ? ODD : HEAD;
        }
        int64_t length = decimal(value);
        if (length < 0) return ODD;
        f->counted = true;
        f->left = (uint64_t)length;
        return HEAD;
    }
    return HEAD;
}

static State head_over(Frame *f) {
    if (f->status == 101) return ODD;
    if (f->status < 200) { /* an interim response: the real one is still to come */
        memset(f, 0, sizeof *f);
        return HEAD;
    }
    if (f->status == 204 || f->status == 304) return DONE;
    if (f->chunked) return SIZE;
    if (f->counted) return f->left ? COUNTED : DONE;
    return UNTIL_CLOSE;
}

/* A whole line, without its CR LF, in `line`. */
static State whole_line(Frame *f) {
    if (f->length >= LINE_BYTES) {
        /* Only its beginning was kept: fine for a header that means nothing here. */
        if (f->state != HEAD) return ODD;
        if (!strncasecmp(f->line, "transfer-", 9) || !strncasecmp(f->line, "content-", 8)) {
            if (strncasecmp(f->line, "content-s", 9)) return ODD; /* content-security-policy is long everywhere */
        }
    }
    switch (f->state) {
    case HEAD:
        if (!f->status) {
            const char *at = f->line;
            if (strncmp(at, "HTTP/1.1 ", 9) || f->length < 12) return ODD;
            for (int i = 9; i < 12; i++) {
                if (at[i] < '0' || at[i] > '9') return ODD;
            }
            f->status = (at[9] - '0') * 100 + (at[10] - '0') * 10 + (at[11] - '0');
            return f->status >= 100 ? HEAD : ODD;
        }
        if (!f->length) return head_over(f);
        if (f->line[0] == ' ' || f->line[0] == '\t') return ODD; /* goes on from the line before */
        return header(f);
    case SIZE: {
        uint32_t n = 0;
        while (is_hex(f->line[n])) n++;
        if (!n || n > 8 || (f->line[n] && f->line[n] != ';')) return ODD;
        f->left = strtoul(f->line, NULL, 16);
        if (!f->left) return TRAILER;
        f->left += 2;
        return DATA;
    }
    case TRAILER:
        return f->length ? TRAILER : DONE;
    default:
        return ODD;
    }
}

/* Read on. Cuts may be anywhere. */
static void frame(Frame *f, const char *at, size_t n) {
    const char *end = at + n;
    while (at < end) {
        switch (f->state) {
        case COUNTED:
        case DATA: {
            size_t here = f->left < (uint64_t)(end - at) ? (size_t)f->left : (size_t)(end - at);
            at += here;
            f->left -= here;
            if (!f->left) f->state = f->state == DATA ? SIZE : DONE;
            break;
        }
        case HEAD:
        case SIZE:
        case TRAILER: {
            char c = *at++;
            if (c == '\n') {
                if (f->bare) { /* the CR before it */
                    f->line[f->length < LINE_BYTES ? f->length : LINE_BYTES - 1] = 0;
                    State next = whole_line(f);
                    f->length = 0;
                    f->bare = false;
                    f->state = next;
                } else {
                    f->state = ODD;
                }
            } else if (f->bare) {
                f->state = ODD;
            } else if (c == '\r') {
                f->bare = true;
            } else {
                if (!c) f->state = ODD;
                if (f->length < LINE_BYTES - 1) f->line[f->length] = c;
                if (f->length < LINE_BYTES) f->length++;
            }
            break;
        }
        case DONE: /* more than was asked for */
            f->state = ODD;
            return;
        default:
            return;
        }
    }
}

/* -- connections ---------------------------------------------------------------------------------------------------- */

typedef struct {
    int64_t at, lag; /* when it arrived, on the monotonic clock, and how much later it was read */
    uint32_t end;    /* in the connection's unread bytes */
} Segment;

typedef struct {
    int fd; /* -1: free */
    uint32_t generation; /* of what epoll says of a socket that was closed meanwhile */
    bool polled, queued, ended, eager;
    int error;           /* errno; with `ended` */
    int64_t stamp, at;   /* of the last read */
    uint32_t n, capacity, segments_n, segments_capacity;
    uint32_t plain_from; /* the segment from which on there are chunks, whole ones at the beginning; or: */
    char *bytes;
    Segment *segments;
    Frame frame;
} Conn;

typedef struct {
    PyObject_HEAD
    pid_t pid; /* a forked child has no thread, and may find the mutex locked */
    int epoll, wake, stop;
    bool running, told;
    const char *place; /* before whom the thread gets a core */
    pthread_barrier_t placed;
    pthread_t thread;
    pthread_mutex_t mutex;
    Conn *conns;
    uint32_t conns_n, conns_used;
    uint32_t *ready; /* slots that Python is to take, a ring of conns_n */
    uint32_t ready_from, ready_n;
    size_t total;
    int64_t sweep_at; /* 0: nothing unread waits */
    int64_t apart;    /* monotonic minus wall clock */
    char scratch[READ_BYTES]; /* under the mutex */
} Reader;

static int64_t now_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void queue(Reader *r, uint32_t slot) {
    if (r->conns[slot].queued) return;
    r->conns[slot].queued = true;
    r->ready[(r->ready_from + r->ready_n++) % r->conns_n] = slot;
}

/* Wake Python, unless it was woken and has not been through the queue since. */
static void tell(Reader *r) {
    uint64_t one = 1;
    if (!r->ready_n || r->told) return;
    r->told = write(r->wake, &one, sizeof one) == sizeof one;
}

static void poll_on(Reader *r, uint32_t slot) {
    Conn *c = &r->conns[slot];
    struct epoll_event e = {.events = EPOLLIN, .data.u64 = (uint64_t)c->generation << 32 | slot};
    c->polled = epoll_ctl(r->epoll, EPOLL_CTL_ADD, c->fd, &e) == 0;
    if (!c->polled && !c->ended) {
        c->ended = true;
        c->error = errno;
        queue(r, slot);
    }
}

static void poll_off(Reader *r, Conn *c) {
    if (!c->polled) return;
    c->polled = false;
    epoll_ctl(r->epoll, EPOLL_CTL_DEL, c->fd, NULL);
}

static void over(Reader *r, uint32_t slot, int error) {
    Conn *c = &r->conns[slot];
    c->ended = true;
    c->error = error;
    poll_off(r, c); /* it would say so for ever */
    queue(r, slot);
}

/* Its part of `total`. */
static size_t held(const Conn *c) {
    return c->n + c->segments_n * sizeof(Segment);
}

/* Room for n bytes and a segment more; never more than MOST_BYTES + READ_BYTES, as a full connection is not read. */
static bool grow(Conn *c, size_t n) {
    if (c->n + n > c->capacity) {
        size_t capacity = c->capacity ? c->capacity : 4096;
        while (capacity < c->n + n) capacity *= 2;
        char *bytes = realloc(c->bytes, capacity);
        if (!bytes) return false;
        c->bytes = bytes;
        c->capacity = (uint32_t)capacity;
    }
    if (c->segments_n == c->segments_capacity) {
        uint32_t capacity = c->segments_capacity ? 2 * c->segments_capacity : 32;
        Segment *segments = realloc(c->segments, capacity * sizeof *segments);
        if (!segments) return false;
        c->segments = segments;
        c->segments_capacity = capacity;
    }
    return true;
}

/* When what was stamped so arrived, by the monotonic clock: as in wire.py. */
static int64_t arrival(Reader *r, Conn *c, int64_t stamp, int64_t *now) {
    int64_t wall = now_ns(CLOCK_REALTIME); /* first: a pause between the two makes an arrival late, never early */
    *now = now_ns(CLOCK_MONOTONIC);
    if (!stamp) return *now;
    if (stamp == c->stamp) return c->at; /* merged by the kernel: one arrival */
    c->stamp = stamp;
    int64_t at = *now - (wall - stamp), apart = *now - wall - r->apart;
    if (apart <= -STEP_NS || apart >= STEP_NS) {
        wall = now_ns(CLOCK_REALTIME);
        *now = now_ns(CLOCK_MONOTONIC);
        apart = *now - wall - r->apart;
        if (apart <= -STEP_NS || apart >= STEP_NS) { /* the wall clock was set, perhaps since the stamp was taken */
            r->apart = *now - wall;
            at = *now;
        } else {
            at = stamp + r->apart;
        }
    }
    return at < *now ? at : *now;
}

/* Read once. False when there is nothing more to read now. */
static bool read_once(Reader *r, uint32_t slot) {
    Conn *c = &r->conns[slot];
    union {
        struct cmsghdr align;
        char bytes[64];
    } control;
    struct iovec into = {r->scratch, READ_BYTES};
    struct msghdr message = {
        .msg_iov = &into, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    ssize_t n = recvmsg(c->fd, &message, MSG_DONTWAIT);
    if (n < 0) {
        if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) return false;
        over(r, slot, errno);
        return false;
    }
    if (!n) {
        over(r, slot, 0);
        return false;
    }
    int64_t stamp = 0, now;
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&message); h; h = CMSG_NXTHDR(&message, h)) {
        struct timespec t;
        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SO_TIMESTAMPNS || h->cmsg_len < CMSG_LEN(sizeof t)) continue;
        memcpy(&t, CMSG_DATA(h), sizeof t);
        stamp = (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
    }
    int64_t at = arrival(r, c, stamp, &now);
    if (at < c->at) at = c->at;
    c->at = at;
    if (!grow(c, (size_t)n)) {
        over(r, slot, ENOMEM);
        return false;
    }
    memcpy(c->bytes + c->n, r->scratch, (size_t)n);
    c->n += (uint32_t)n;
    r->total += (size_t)n + sizeof(Segment);
    c->segments[c->segments_n++] = (Segment){at, now - at, c->n};
    frame(&c->frame, r->scratch, (size_t)n);
    if (c->plain_from == UNKNOWN && c->frame.state == SIZE && !c->frame.length && !c->frame.bare && !c->frame.coded) {
        c->plain_from = c->segments_n;
    }
    bool full = c->n >= MOST_BYTES || c->segments_n >= MOST_SEGMENTS || r->total >= MOST_TOTAL;
    if (full) poll_off(r, c);
    State state = c->frame.state;
    if (full || c->eager || state == DONE || state == ODD || state == IDLE) {
        queue(r, slot);
    } else if (!r->sweep_at) {
        r->sweep_at = now + SWEEP_NS;
    }
    return !full;
}

/* -- the thread ----------------------------------------------------------------------------------------------------- */

static void sweep(Reader *r) {
    r->sweep_at = 0;
    for (uint32_t slot = 0; slot < r->conns_used; slot++) {
        if (r->conns[slot].fd >= 0 && r->conns[slot].segments_n) queue(r, slot);
    }
}

/* Ask for a core before those who compute. It waits in epoll nearly always, and Linux keeps 5 % of a core from real-time
 * threads, so that one which never waits again, under a flood, stops no machine. */
static const char *better_place(void) {
    struct sched_param lowest = {.sched_priority = sched_get_priority_min(SCHED_RR)};
    if (!pthread_setschedparam(pthread_self(), SCHED_RR, &lowest)) return "real-time";
    struct { /* sched_attr, which not every libc knows */
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } slice = {.size = sizeof slice, .runtime = SLICE_NS}, got = {.size = 0};
    if (syscall(SYS_sched_setattr, 0, &slice, 0) || syscall(SYS_sched_getattr, 0, &got, sizeof got, 0)) return "ordinary";
    return got.runtime == SLICE_NS ? "short slice" : "ordinary"; /* Linux before 6.12 takes it without a word, and keeps none */
}

static void *run(void *argument) {
    Reader *r = argument;
    r->place = better_place();
    pthread_barrier_wait(&r->placed);
    struct epoll_event events[BATCH];
    int64_t sweep_at = 0, woke_at = 0;
    for (;;) {
        int wait_ms = -1;
        if (sweep_at) {
            int64_t left = sweep_at - now_ns(CLOCK_MONOTONIC);
            wait_ms = left > 0 ? (int)(left / 1000000) + 1 : 0;
        }
        int n = epoll_wait(r->epoll, events, BATCH, wait_ms);
        if (n < 0 && errno != EINTR) return NULL; /* somebody closed what is ours: no reason to spin */
        int64_t woke_before_at = woke_at;
        woke_at = now_ns(CLOCK_MONOTONIC);
        for (int i = 0; i < n; i++) {
            if (events[i].data.u64 == STOP) return NULL;
            uint32_t slot = (uint32_t)events[i].data.u64;
            pthread_mutex_lock(&r->mutex);
            Conn *c = &r->conns[slot];
            if (c->fd >= 0 && c->generation == events[i].data.u64 >> 32 && c->polled) read_once(r, slot);
            pthread_mutex_unlock(&r->mutex);
        }
        pthread_mutex_lock(&r->mutex);
        if (r->sweep_at && r->sweep_at <= now_ns(CLOCK_MONOTONIC)) sweep(r);
        sweep_at = r->sweep_at;
        tell(r);
        pthread_mutex_unlock(&r->mutex);
        if (woke_at - woke_before_at < NAP_NS) {
            struct timespec nap = {.tv_nsec = NAP_NS};
            nanosleep(&nap, NULL);
        }
    }
}

/* -- Python's side -------------------------------------------------------------------------------------------------- */

static void stop_thread(Reader *r) {
    bool ours = r->pid == getpid();
    if (r->running && ours) {
        uint64_t one = 1;
        if (write(r->stop, &one, sizeof one) == sizeof one) pthread_join(r->thread, NULL);
    }
    r->running = false;
    if (r->epoll >= 0) close(r->epoll);
    if (r->wake >= 0) close(r->wake);
    if (r->stop >= 0) close(r->stop);
    r->epoll = r->wake = r->stop = -1;
    if (!ours) return; /* the thread may have been amid a change as the process forked: the child leaves it all alone */
    for (uint32_t slot = 0; slot < r->conns_used; slot++) {
        free(r->conns[slot].bytes);
        free(r->conns[slot].segments);
    }
    free(r->conns);
    free(r->ready);
    r->conns = NULL;
    r->ready = NULL;
    r->conns_n = r->conns_used = r->ready_n = 0;
}

static PyObject *reader_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    if (!PyArg_ParseTuple(args, "")) return NULL;
    (void)kwargs;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Reader *r = (Reader *)allocate(type, 0); /* zeroed */
    if (!r) return NULL;
    r->pid = getpid();
    pthread_mutexattr_t inherits; /* who holds it gets the place of who waits for it */
    pthread_mutexattr_init(&inherits);
    pthread_mutexattr_setprotocol(&inherits, PTHREAD_PRIO_INHERIT);
    if (pthread_mutex_init(&r->mutex, &inherits)) pthread_mutex_init(&r->mutex, NULL); /* a kernel without inheritance */
    pthread_mutexattr_destroy(&inherits);
    r->epoll = epoll_create1(EPOLL_CLOEXEC);
    r->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    r->stop = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    r->apart = -now_ns(CLOCK_REALTIME);
    r->apart += now_ns(CLOCK_MONOTONIC);
    struct epoll_event e = {.events = EPOLLIN, .data.u64 = STOP};
    int error = r->epoll < 0 || r->wake < 0 || r->stop < 0 ? errno : 0;
    if (!error && epoll_ctl(r->epoll, EPOLL_CTL_ADD, r->stop, &e) < 0) error = errno;
    if (!error) {
        sigset_t all, before; /* signals are for the main thread, which has Python's handlers */
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        pthread_barrier_init(&r->placed, NULL, 2);
        error = pthread_create(&r->thread, NULL, run, r);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        r->running = !error;
        if (!error) pthread_barrier_wait(&r->placed);
        pthread_barrier_destroy(&r->placed);
    }
    if (error) {
        Py_DECREF(r);
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    pthread_setname_np(r->thread, "loadbench-read");
    return (PyObject *)r;
}

static void reader_dealloc(Reader *r) {
    stop_thread(r);
    PyTypeObject *type = Py_TYPE((PyObject *)r);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(r);
    Py_DECREF(type);
}

static PyObject *reader_close(Reader *r, PyObject *nothing) {
    (void)nothing;
    stop_thread(r);
    Py_RETURN_NONE;
}

static PyObject *reader_fileno(Reader *r, PyObject *nothing) {
    (void)nothing;
    return PyLong_FromLong(r->wake);
}

static PyObject *reader_place(Reader *r, PyObject *nothing) {
    (void)nothing;
    return PyUnicode_FromString(r->place);
}

/* Lock, and give the open connection of this slot; NULL with an exception, and unlocked, where there is none. */
static Conn *locked(Reader *r, PyObject *slot) {
    unsigned long number = PyLong_AsUnsignedLong(slot);
    if (PyErr_Occurred()) return NULL;
    if (r->running && r->pid == getpid()) {
        pthread_mutex_lock(&r->mutex);
        if (number < r->conns_used && r->conns[number].fd >= 0) return &r->conns[number];
        pthread_mutex_unlock(&r->mutex);
    }
    PyErr_SetString(PyExc_ValueError, "no open connection of this reader");
    return NULL;
}

/* Room for a connection more; the ready ring has as many places. False where there is no memory. */
static bool more_conns(Reader *r) {
    uint32_t n = r->conns_n ? 2 * r->conns_n : 64;
    uint32_t *ready = malloc(n * sizeof *ready);
    Conn *conns = ready ? realloc(r->conns, n * sizeof *conns) : NULL;
    if (!conns) {
        free(ready);
        return false;
    }
    for (uint32_t i = 0; i < r->ready_n; i++) ready[i] = r->ready[(r->ready_from + i) % r->conns_n];
    free(r->ready);
    r->ready = ready;
    r->ready_from = 0;
    r->conns = conns;
    r->conns_n = n;
    return true;
}

static PyObject *reader_open(Reader *r, PyObject *fileno) {
    long fd = PyLong_AsLong(fileno);
    if (PyErr_Occurred()) return NULL;
    if (fd < 0 || fd > INT32_MAX || !r->running || r->pid != getpid()) {
        PyErr_SetString(PyExc_ValueError, "the reader is closed, or the socket");
        return NULL;
    }
    pthread_mutex_lock(&r->mutex);
    uint32_t slot = 0;
    while (slot < r->conns_used && r->conns[slot].fd >= 0) slot++;
    bool room = slot < r->conns_n || more_conns(r);
    if (room) {
        uint32_t generation = 0;
        bool queued = false; /* it may be in the ring still, and is to be there once */
        if (slot == r->conns_used) {
            r->conns_used++;
        } else {
            generation = r->conns[slot].generation;
            queued = r->conns[slot].queued;
        }
        r->conns[slot] = (Conn){.fd = (int)fd, .generation = generation + 1, .queued = queued, .plain_from = UNKNOWN};
        poll_on(r, slot);
        tell(r);
    }
    pthread_mutex_unlock(&r->mutex);
    if (!room) return PyErr_NoMemory();
    return PyLong_FromUnsignedLong(slot);
}

static PyObject *reader_forget(Reader *r, PyObject *slot) {
    Conn *c = locked(r, slot);
    if (!c) return NULL;
    poll_off(r, c);
    r->total -= held(c);
    char *bytes = c->bytes;
    Segment *segments = c->segments;
    c->bytes = NULL;
    c->segments = NULL;
    c->n = c->capacity = c->segments_n = c->segments_capacity = 0;
    c->fd = -1;
    pthread_mutex_unlock(&r->mutex);
    free(bytes);
    free(segments);
    Py_RETURN_NONE;
}

static PyObject *reader_begin(Reader *r, PyObject *args) {
    PyObject *slot;
    int eager;
    if (!PyArg_ParseTuple(args, "Op", &slot, &eager)) return NULL;
    Conn *c = locked(r, slot);
    if (!c) return NULL;
    memset(&c->frame, 0, sizeof c->frame);
    c->frame.state = c->segments_n ? ODD : HEAD; /* bytes that nobody asked for come first: the parser begins with them */
    c->eager = eager;
    c->plain_from = UNKNOWN;
    pthread_mutex_unlock(&r->mutex);
    Py_RETURN_NONE;
}

static PyObject *reader_look(Reader *r, PyObject *slot) {
    Conn *c = locked(r, slot);
    if (!c) return NULL;
    uint32_t number = (uint32_t)(c - r->conns);
    while (c->polled && read_once(r, number)) continue;
    bool news = c->segments_n || c->ended;
    pthread_mutex_unlock(&r->mutex);
    return PyBool_FromLong(news);
}

static PyObject *reader_ready(Reader *r, PyObject *number) {
    unsigned long most = PyLong_AsUnsignedLong(number);
    if (PyErr_Occurred()) return NULL;
    uint32_t found[BATCH], n = 0;
    if (most > BATCH) most = BATCH;
    if (r->running && r->pid == getpid()) {
        pthread_mutex_lock(&r->mutex);
        while (r->ready_n && n < most) {
            uint32_t slot = r->ready[r->ready_from];
            r->ready_from = (r->ready_from + 1) % r->conns_n;
            r->ready_n--;
            r->conns[slot].queued = false;
            if (r->conns[slot].fd >= 0) found[n++] = slot;
        }
        uint64_t count;
        if (!r->ready_n && read(r->wake, &count, sizeof count) >= 0) r->told = false;
        pthread_mutex_unlock(&r->mutex);
    }
    PyObject *list = PyList_New(n);
    for (uint32_t i = 0; list && i < n; i++) {
        PyObject *slot = PyLong_FromUnsignedLong(found[i]);
        if (!slot) Py_CLEAR(list);
        else PyList_SetItem(list, i, slot);
    }
    return list;
}

static bool append(PyObject *pieces, PyObject *times, const char *from, const char *to, int64_t at) {
    PyObject *piece = PyBytes_FromStringAndSize(from, to - from), *time = PyLong_FromLongLong(at);
    bool done = piece && time && !PyList_Append(pieces, piece) && !PyList_Append(times, time);
    Py_XDECREF(piece);
    Py_XDECREF(time);
    return done;
}

/* The end of the chunk that begins here, its CR LF included, and where its data begins; NULL where it is not whole, is the
 * last one, or is not as plain as can be. */
static const char *whole_chunk(const char *at, const char *end, const char **data) {
    uint32_t size = 0;
    int digits = 0;
    for (; at < end && is_hex(*at) && digits < 7; at++, digits++) {
        size = size * 16 + (uint32_t)(*at <= '9' ? *at - '0' : (*at | 32) - 'a' + 10);
    }
    if (!size || end - at < 2 || at[0] != '\r' || at[1] != '\n') return NULL;
    *data = at + 2;
    if ((size_t)(end - *data) < (size_t)size + 2) return NULL;
    at = *data + size;
    return at[0] == '\r' && at[1] == '\n' ? at + 2 : NULL;
}

/* What came since: (pieces, times, lags, first, last, ended). Those of [first, last) are bodies of chunks, as the HTTP parser
 * would cut them; the others are bytes as they came. */
static PyObject *taken(const char *bytes, const Segment *segments, uint32_t n, uint32_t plain_from, bool *plain) {
    PyObject *pieces = PyList_New(0), *times = PyList_New(0), *lags = PyList_New(0);
    bool sound = pieces && times && lags;
    const char *at = bytes, *end = n ? bytes + segments[n - 1].end : bytes;
    uint32_t i = 0;
    for (; sound && i < n; i++) {
        PyObject *lag = PyLong_FromLongLong(segments[i].lag);
        sound = lag && !PyList_Append(lags, lag);
        Py_XDECREF(lag);
    }
    for (i = 0; sound && i < n && i < plain_from; i++) {
        sound = append(pieces, times, at, bytes + segments[i].end, segments[i].at);
        at = bytes + segments[i].end;
    }
    Py_ssize_t first = sound ? PyList_Size(pieces) : 0;
    const char *data, *next;
    while (sound && *plain && at < end && (next = whole_chunk(at, end, &data))) {
        while (segments[i].end <= (size_t)(data - bytes)) i++;
        for (; sound && data < next - 2;) {
            const char *until = bytes + segments[i].end;
            if (until > next - 2) until = next - 2;
            sound = append(pieces, times, data, until, segments[i].at);
            data = until;
            if (data < next - 2) i++;
        }
        at = next;
    }
    Py_ssize_t last = sound ? PyList_Size(pieces) : 0;
    if (at < end) *plain = false; /* the parser goes on from here */
    while (sound && at < end) {
        while (segments[i].end <= (size_t)(at - bytes)) i++;
        sound = append(pieces, times, at, bytes + segments[i].end, segments[i].at);
        at = bytes + segments[i].end;
    }
    PyObject *found = sound ? Py_BuildValue("OOOnn", pieces, times, lags, first, last) : NULL;
    Py_XDECREF(pieces);
    Py_XDECREF(times);
    Py_XDECREF(lags);
    return found;
}

static PyObject *reader_take(Reader *r, PyObject *slot) {
    Conn *c = locked(r, slot);
    if (!c) return NULL;
    uint32_t number = (uint32_t)(c - r->conns), generation = c->generation;
    char *bytes = c->bytes;
    Segment *segments = c->segments;
    uint32_t n = c->segments_n, capacity = c->capacity, segments_capacity = c->segments_capacity;
    uint32_t plain_from = c->plain_from;
    bool ended = c->ended, plain = plain_from < NEVER;
    int error = c->error;
    r->total -= held(c);
    c->bytes = NULL;
    c->segments = NULL;
    c->n = c->capacity = c->segments_n = c->segments_capacity = 0;
    pthread_mutex_unlock(&r->mutex);

    PyObject *parts = taken(bytes, segments, n, plain_from, &plain);
    PyObject *found = NULL;
    if (parts) found = ended ? Py_BuildValue("Ni", parts, error) : Py_BuildValue("NO", parts, Py_None);

    pthread_mutex_lock(&r->mutex);
    c = number < r->conns_used ? &r->conns[number] : NULL; /* the reader may be closed, the connection forgotten */
    if (c && c->fd >= 0 && c->generation == generation) {
        /* It counts the segments of the next take, and may have been found since. */
        if (plain_from != UNKNOWN) c->plain_from = plain ? 0 : NEVER;
        bool small = capacity <= KEPT_BYTES && segments_capacity * sizeof *segments <= KEPT_BYTES;
        if (!c->bytes && !c->segments && small) {
            c->bytes = bytes;
            c->segments = segments;
            c->capacity = capacity;
            c->segments_capacity = segments_capacity;
            bytes = NULL;
            segments = NULL;
        }
        if (!c->polled && !c->ended) poll_on(r, number);
        tell(r);
    }
    pthread_mutex_unlock(&r->mutex);
    free(bytes);
    free(segments);
    return found;
}

static PyMethodDef methods[] = {
    {"open", (PyCFunction)reader_open, METH_O, NULL},     {"forget", (PyCFunction)reader_forget, METH_O, NULL},
    {"begin", (PyCFunction)reader_begin, METH_VARARGS, NULL}, {"look", (PyCFunction)reader_look, METH_O, NULL},
    {"ready", (PyCFunction)reader_ready, METH_O, NULL},   {"take", (PyCFunction)reader_take, METH_O, NULL},
    {"place", (PyCFunction)reader_place, METH_NOARGS, NULL},
    {"fileno", (PyCFunction)reader_fileno, METH_NOARGS, NULL}, {"close", (PyCFunction)reader_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, reader_new}, {Py_tp_dealloc, reader_dealloc}, {Py_tp_methods, methods}, {0, NULL},
};

static PyType_Spec spec = {"loadbench.transport._reader.Reader", sizeof(Reader), 0, Py_TPFLAGS_DEFAULT, slots};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_reader", NULL, -1, NULL, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__reader(void) {
    PyObject *made = PyModule_Create(&module), *type = made ? PyType_FromSpec(&spec) : NULL;
    if (type && !PyModule_AddObjectRef(made, "Reader", type)) {
        Py_DECREF(type);
        return made;
    }
    Py_XDECREF(type);
    Py_XDECREF(made);
    return NULL;
}
