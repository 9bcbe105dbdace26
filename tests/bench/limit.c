/* The limit: streams read by epoll and recvmsg with kernel stamps, events counted, nothing kept.
 *
 *     limit PORT STREAMS REQUESTS TOKENS MODEL
 *
 * No client that stamps what it reads can be cheaper by much, so what a client costs is held against it, in one run on
 * one machine. It prints "ready" once it is connected, begins when a line comes on its standard input, and prints its
 * figures as JSON. It knows no HTTP but the last chunk's bytes: it is for the simulator alone.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 64, READ_BYTES = 65536 };

static char request[2048];
static size_t request_n;

static double cpu_s(void) {
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    return use.ru_utime.tv_sec + use.ru_stime.tv_sec + (use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
}

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void ask(int fd) {
    if (write(fd, request, request_n) != (ssize_t)request_n) fail("write");
}

static int connected(int port, int epoll) {
    int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons((unsigned short)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to)) fail("connect");
    setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event)) fail("epoll_ctl");
    return fd;
}

int main(int argc, char **argv) {
    if (argc != 6) return 2;
    int port = atoi(argv[1]), streams = atoi(argv[2]), epoll = epoll_create1(0), last = 0;
    long requests = atol(argv[3]), asked = streams, answered = 0, events = 0;
    char body[1024];
    int body_n = snprintf(body, sizeof body,
                          "{\"model\":\"%s\",\"messages\":[{\"role\":\"user\",\"content\":\"Count.\"}],"
                          "\"max_tokens\":%d,\"stream\":true}",
                          argv[5], atoi(argv[4]));
    request_n = (size_t)snprintf(request, sizeof request,
                                 "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n"
                                 "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
                                 port, body_n, body);
    int *fds = calloc((size_t)streams, sizeof *fds);
    for (int i = 0; i < streams; i++) fds[i] = connected(port, epoll);
    puts("ready");
    fflush(stdout);
    if (getchar() == EOF) return 1;

    double began_s = now_s(), used_s = cpu_s();
    for (int i = 0; i < streams; i++) ask(fds[i]);
    static char bytes[READ_BYTES];
    char control[64];
    struct epoll_event found[BATCH];
    while (answered < requests) {
        int n = epoll_wait(epoll, found, BATCH, -1);
        for (int i = 0; i < n; i++) {
            int fd = found[i].data.fd;
            struct iovec into = {bytes, sizeof bytes};
            struct msghdr message = {
                .msg_iov = &into, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
            ssize_t got = recvmsg(fd, &message, MSG_DONTWAIT);
            if (got < 0) continue;
            if (!got) fail("the server closed a connection");
            char *at = bytes, *end = bytes + got;
            while ((at = memmem(at, (size_t)(end - at), "data: ", 6))) events++, at += 6;
            last = got >= 5 && !memcmp(end - 5, "0\r\n\r\n", 5);
            if (!last) continue;
            answered++;
            if (asked++ < requests) ask(fd);
        }
    }
    printf("{\"requests\":%ld,\"failed\":0,\"events\":%ld,\"duration_s\":%.6f,\"cpu_s\":%.6f}\n", answered,
           events - 3 * answered, now_s() - began_s, cpu_s() - used_s);
    return 0;
}
