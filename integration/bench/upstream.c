/*
 * The upstream of the benchmarks: a small MCP server over TLS 1.3, one thread, never what a run waits for.
 *
 *   upstream PORT CERTIFICATE KEY TOKEN      listens on 127.0.0.1, says "ready" once
 *
 * Every request must carry "Authorization: Bearer TOKEN". What is answered is up to a request header:
 *
 *   (none)                       a JSON-RPC reply to the body's method and id, of another length each; the head has a
 *                                date and a new id
 *   Bench: bytes N               a body of N bytes
 *   Bench: sink                  the request's body is read and counted
 *   Bench: events COUNT MICROS   an event stream: COUNT events (0: without end), one each MICROS (0: as fast as it goes);
 *                                each names the CLOCK_MONOTONIC ns at which it was written
 *
 * Not a server for anything else: no timeouts, no chunked requests, no more than MAX_FDS connections.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_FDS = 4096, IN = 64 * 1024, OUT = 256 * 1024, EVENT = 200, REPLY_TEXT = 204, TURNS = 4 };

typedef struct {
    SSL *ssl;
    int fd;
    char *in, *out;
    size_t in_size, out_size;
    long long sink;      /* request body bytes still to come and to be thrown away */
    long long bytes;     /* response body bytes still to be sent */
    long long events;    /* events still to be sent; -1: without end */
    long long period;    /* ns between events; 0: as fast as it goes */
    long long due;       /* when the next event is due, CLOCK_MONOTONIC ns */
    int streaming, writes_wanted;
} Connection;

static Connection *connections[MAX_FDS];
static int highest, poller;
static char authorization[300];
static char filler[OUT];
static unsigned long long served;

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void die(const char *what) {
    fprintf(stderr, "upstream: %s: %s\n", what, strerror(errno));
    ERR_print_errors_fp(stderr);
    exit(1);
}

static const char *date(void) {
    static time_t last;
    static char text[64];
    time_t t = time(NULL);
    if (t != last) {
        struct tm tm;
        strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&t, &tm));
        last = t;
    }
    return text;
}

static void drop(Connection *c) {
    connections[c->fd] = NULL;
    SSL_free(c->ssl);
    close(c->fd);
    free(c->in);
    free(c->out);
    free(c);
}

static void put(Connection *c, const char *data, size_t size) {
    if (c->out_size + size > OUT) {
        fprintf(stderr, "upstream: an answer does not fit\n");
        exit(1);
    }
    memcpy(c->out + c->out_size, data, size);
    c->out_size += size;
}

static void put_head(Connection *c, const char *status, const char *type, const char *framing) {
    char head[512];
    int size = snprintf(head, sizeof head,
        "HTTP/1.1 %s\r\nServer: bench\r\nDate: %s\r\nContent-Type: %s\r\nX-Request-Id: %016llx\r\n"
        "Cache-Control: no-cache\r\n%s\r\n\r\n", status, date(), type, ++served * 0x9E3779B97F4A7C15ULL, framing);
    put(c, head, size);
}

static void put_json(Connection *c, const char *status, const char *body) {
    char framing[64];
    snprintf(framing, sizeof framing, "Content-Length: %zu", strlen(body));
    put_head(c, status, "application/json", framing);
    put(c, body, strlen(body));
}

/* Answer a JSON-RPC message; only as much of it is understood as the benchmark's clients need. */
static void answer(Connection *c, char *body, size_t size) {
    char reply[1024], id[64] = "null";
    char *found = memmem(body, size, "\"id\":", 5);
    if (found != NULL) {
        size_t length = 0;
        for (found += 5; found < body + size && *found == ' ';)
            found++;
        for (; found + length < body + size && !strchr(",} ", found[length]) && length < sizeof id - 1;)
            length++;
        memcpy(id, found, length);
        id[length] = 0;
    }
    if (memmem(body, size, "\"notifications/", 15) != NULL) {
        put_json(c, "202 Accepted", "");
        return;
    }
    if (memmem(body, size, "\"initialize\"", 12) != NULL)
        snprintf(reply, sizeof reply, "{\"jsonrpc\":\"2.0\",\"id\":%s,\"result\":{\"protocolVersion\":\"2025-06-18\","
            "\"capabilities\":{\"tools\":{}},\"serverInfo\":{\"name\":\"bench\",\"version\":\"1\"}}}", id);
    else if (memmem(body, size, "\"tools/list\"", 12) != NULL)
        snprintf(reply, sizeof reply, "{\"jsonrpc\":\"2.0\",\"id\":%s,\"result\":{\"tools\":[{\"name\":\"echo\","
            "\"inputSchema\":{\"type\":\"object\"}}]}}", id);
    else
        snprintf(reply, sizeof reply, "{\"jsonrpc\":\"2.0\",\"id\":%s,\"result\":{\"content\":[{\"type\":\"text\","
            "\"text\":\"%.*s\"}]}}", id, REPLY_TEXT + (int)(served * 7 % 64), filler);
    put_json(c, "200 OK", reply);
}

static void put_event(Connection *c, long long at) {
    char event[EVENT + 16];
    int size = snprintf(event, sizeof event,
        "%x\r\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"ns\":%020lld,\"fill\":\"%.*s\"}}\n\n\r\n",
        EVENT, at, EVENT - 106, filler);
    put(c, event, size);
    if (c->events > 0 && --c->events == 0) {
        put(c, "0\r\n\r\n", 5);
        c->streaming = 0;
    }
}

/* Take one request off the input, if it is there; return whether there was one. -1: the connection is broken. */
static int take(Connection *c) {
    char *end = memmem(c->in, c->in_size, "\r\n\r\n", 4);
    if (end == NULL)
        return c->in_size == IN ? -1 : 0;
    end[2] = 0; /* the head is text from here on, its last line with its CRLF */
    size_t head = end + 4 - c->in;
    char *field = strcasestr(c->in, "\r\nContent-Length: ");
    long long length = field == NULL ? 0 : atoll(field + 18);
    char *mode = strcasestr(c->in, "\r\nBench: ");
    int sink = mode != NULL && strncmp(mode + 9, "sink", 4) == 0;
    if (!sink && c->in_size < head + length) {
        end[2] = '\r';
        return head + length > IN ? -1 : 0;
    }
    if (strcasestr(c->in, "\r\nTransfer-Encoding:") != NULL)
        return -1;
    char *given = strcasestr(c->in, "\r\nAuthorization: ");
    long long count = 0, micros = 0;
    char framing[64];
    if (given == NULL || strncmp(given + 17, authorization, strlen(authorization)) != 0)
        put_json(c, "401 Unauthorized", "{}");
    else if (sink) {
        size_t here = c->in_size - head;
        c->sink = length;
        if (here > (size_t)length)
            return -1;
        c->sink -= here;
        length = here;
        if (c->sink == 0)
            put_json(c, "200 OK", "{}");
    } else if (mode != NULL && sscanf(mode + 9, "bytes %lld", &count) == 1) {
        snprintf(framing, sizeof framing, "Content-Length: %lld", count);
        put_head(c, "200 OK", "application/octet-stream", framing);
        c->bytes = count;
    } else if (mode != NULL && sscanf(mode + 9, "events %lld %lld", &count, &micros) == 2) {
        put_head(c, "200 OK", "text/event-stream", "Transfer-Encoding: chunked");
        c->streaming = 1;
        c->events = count > 0 ? count : -1;
        c->period = micros * 1000;
        c->due = now();
    } else if (strncmp(c->in, "POST ", 5) == 0)
        answer(c, c->in + head, length);
    else
        put_json(c, "405 Method Not Allowed", "{}");
    c->in_size -= head + length;
    memmove(c->in, c->in + head + length, c->in_size);
    return 1;
}

/* Send what there is. Return 0, or -1 where the connection is broken. */
static int flush(Connection *c) {
    int stuck = 0;
    for (int turn = 0;; turn++) {
        if (turn == TURNS) { /* the others want their turn too */
            stuck = 1;
            break;
        }
        if (c->streaming && c->period == 0)
            while (c->streaming && c->out_size < OUT / 4)
                put_event(c, now());
        while (c->bytes > 0 && c->out_size < OUT / 4) {
            size_t part = c->bytes < OUT / 4 ? c->bytes : OUT / 4;
            put(c, filler, part);
            c->bytes -= part;
        }
        if (c->out_size == 0)
            break;
        int sent = SSL_write(c->ssl, c->out, c->out_size);
        if (sent <= 0) {
            int error = SSL_get_error(c->ssl, sent);
            if (error != SSL_ERROR_WANT_WRITE)
                return -1;
            stuck = 1;
            break;
        }
        c->out_size -= sent;
        memmove(c->out, c->out + sent, c->out_size);
    }
    if (stuck != c->writes_wanted) {
        struct epoll_event event = {.events = EPOLLIN | (stuck ? EPOLLOUT : 0), .data.fd = c->fd};
        epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
        c->writes_wanted = stuck;
    }
    return 0;
}

static int read_some(Connection *c) {
    for (;;) {
        int want = c->sink > 0 ? (c->sink < OUT ? (int)c->sink : OUT) : (int)(IN - c->in_size);
        static char thrown[OUT];
        int got = want == 0 ? 0 : SSL_read(c->ssl, c->sink > 0 ? thrown : c->in + c->in_size, want);
        if (got <= 0)
            return SSL_get_error(c->ssl, got) == SSL_ERROR_WANT_READ ? 0 : -1;
        if (c->sink > 0) {
            c->sink -= got;
            if (c->sink == 0)
                put_json(c, "200 OK", "{}");
            continue;
        }
        c->in_size += got;
        int taken;
        while (c->sink == 0 && (taken = take(c)) != 0)
            if (taken < 0)
                return -1;
    }
}

static void serve(Connection *c) {
    ERR_clear_error(); /* what another connection left there would be taken for this one's */
    if (read_some(c) < 0 || flush(c) < 0)
        drop(c);
}

static void take_client(int listener, SSL_CTX *context) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if (fd >= MAX_FDS)
            die("too many connections");
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        Connection *c = calloc(1, sizeof *c);
        c->fd = fd;
        c->in = malloc(IN);
        c->out = malloc(OUT);
        c->ssl = SSL_new(context);
        SSL_set_fd(c->ssl, fd);
        SSL_set_accept_state(c->ssl);
        connections[fd] = c;
        highest = fd > highest ? fd : highest;
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
    }
}

/* Send the events that are due; return the ns until the next one is, or -1. */
static long long tick(void) {
    long long at = now(), next = -1;
    for (int fd = 0; fd <= highest; fd++) {
        Connection *c = connections[fd];
        if (c == NULL || !c->streaming || c->period == 0)
            continue;
        if (c->due <= at) {
            if (c->out_size < OUT / 2) /* a reader that does not keep up misses events, and is sent no backlog */
                put_event(c, now());
            c->due += c->period;
            if (c->due < at)
                c->due = at + c->period;
            ERR_clear_error();
            if (flush(c) < 0) {
                drop(c);
                continue;
            }
        }
        if (c->streaming && (next < 0 || c->due - at < next))
            next = c->due - at;
    }
    return next;
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: upstream PORT CERTIFICATE KEY TOKEN\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    memset(filler, 'x', sizeof filler);
    snprintf(authorization, sizeof authorization, "Bearer %s\r\n", argv[4]);
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if (SSL_CTX_use_certificate_chain_file(context, argv[2]) != 1 || SSL_CTX_use_PrivateKey_file(context, argv[3], SSL_FILETYPE_PEM) != 1)
        die("certificate");
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 512) < 0)
        die("listen");
    poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct epoll_event events[64];
        long long wait = tick();
        struct timespec timeout = {wait / 1000000000LL, wait % 1000000000LL};
        int count = epoll_pwait2(poller, events, 64, wait < 0 ? NULL : &timeout, NULL);
        for (int i = 0; i < count; i++) {
            if (events[i].data.fd == listener)
                take_client(listener, context);
            else if (connections[events[i].data.fd] != NULL)
                serve(connections[events[i].data.fd]);
        }
    }
}
