// The first (and only) process of the emulated machine: it runs one program,
// carries the program's output out of the machine, reports how the program
// ended, and then switches the machine off.
//
// The output leaves through the data registers of three serial ports, written
// here directly rather than through the kernel's terminal driver. That keeps
// the bytes unchanged (a terminal would turn "\n" into "\r\n"), keeps stdout,
// stderr and the final report apart, and leaves the first serial port to the
// kernel's own messages.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { STDOUT_PORT = 0x2f8, STDERR_PORT = 0x3e8, REPORT_PORT = 0x2e8 };

static void port_setup(unsigned port) {
    outb(0x00, port + 1); // No interrupts: this program polls.
    outb(0x80, port + 3); // Open the divisor latch,
    outb(0x01, port + 0); // and choose the highest rate, 115200 baud.
    outb(0x00, port + 1);
    outb(0x03, port + 3); // Eight data bits, no parity, latch closed.
    outb(0x03, port + 4);
}

static void port_write(unsigned port, const char *data, size_t len) {
    for (size_t i = 0; i < len; i++) {
        while (!(inb(port + 5) & 0x20)) {
        }
        outb((unsigned char)data[i], port);
    }
    // Wait for the last byte to leave, so that switching off loses nothing.
    while (!(inb(port + 5) & 0x40)) {
    }
}

static void power_off(void) {
    // Bochs ends when this word is written to this port.
    for (const char *c = "Shutdown"; *c; c++) {
        outb((unsigned char)*c, 0x8900);
    }
    for (;;) {
        pause();
    }
}

__attribute__((format(printf, 1, 2))) static void report(const char *format, ...) {
    char line[512];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (len > (int)sizeof line - 1) {
        len = sizeof line - 1;
    }
    port_write(REPORT_PORT, line, (size_t)len);
}

static void fail(const char *what) {
    report("error: %s: %s\n", what, strerror(errno));
    power_off();
}

// Reads a file of strings that each end in a zero byte, and returns them as a
// list that ends in a null pointer, as execve wants it.
static char **read_strings(const char *path) {
    FILE *file = fopen(path, "r");
    if (!file) {
        fail(path);
    }
    char **list = NULL;
    size_t count = 0, room = 0;
    char *text = NULL;
    while (getdelim(&text, &room, '\0', file) > 0) {
        list = realloc(list, (count + 2) * sizeof *list);
        list[count++] = text;
        text = NULL;
        room = 0;
    }
    fclose(file);
    if (!list) {
        list = malloc(sizeof *list);
    }
    list[count] = NULL;
    return list;
}

// Passes on what can be read without waiting. Returns 0 at the end of the pipe.
static int pass_on(int fd, unsigned port) {
    char buffer[4096];
    for (;;) {
        ssize_t got = read(fd, buffer, sizeof buffer);
        if (got > 0) {
            port_write(port, buffer, (size_t)got);
        } else if (got < 0 && errno == EAGAIN) {
            return 1;
        } else if (got < 0 && errno == EINTR) {
            continue;
        } else {
            return 0;
        }
    }
}

int main(void) {
    if (iopl(3) != 0) {
        // Without access to the ports nothing can be said; ending makes the
        // kernel panic, and its console says so.
        return 1;
    }
    port_setup(STDOUT_PORT);
    port_setup(STDERR_PORT);
    port_setup(REPORT_PORT);

    mkdir("/proc", 0755);
    mkdir("/sys", 0755);
    mkdir("/dev", 0755);
    mkdir("/tmp", 01777);
    if (mount("proc", "/proc", "proc", 0, NULL) != 0) {
        fail("mount /proc");
    }
    if (mount("sysfs", "/sys", "sysfs", 0, NULL) != 0) {
        fail("mount /sys");
    }
    if (mount("devtmpfs", "/dev", "devtmpfs", 0, NULL) != 0) {
        fail("mount /dev");
    }
    int null = open("/dev/null", O_RDWR);
    if (null < 0) {
        fail("/dev/null");
    }
    while (null < 3) {
        // The kernel found no console for this process, so that descriptors
        // 0 to 2 may be free; they must not become the pipes below.
        null = dup(null);
    }

    char **directory = read_strings("/.run/directory");
    char **environment = read_strings("/.run/environment");
    char **arguments = read_strings("/.run/arguments");

    int out[2], err[2];
    if (pipe2(out, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC) != 0) {
        fail("pipe");
    }

    // The clock starts here, so that the time reported is the program's own.
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    pid_t child = fork();
    if (child < 0) {
        fail("fork");
    }
    if (child == 0) {
        // The program gets no access to the ports.
        iopl(0);
        setsid();
        dup2(null, 0);
        dup2(out[1], 1);
        dup2(err[1], 2);
        if (chdir(directory[0]) != 0) {
            dprintf(2, "%s: %s\n", directory[0], strerror(errno));
            _exit(126);
        }
        execve("/.run/program", arguments, environment);
        dprintf(2, "%s: %s\n", arguments[0], strerror(errno));
        _exit(126);
    }
    close(out[1]);
    close(err[1]);
    fcntl(out[0], F_SETFL, O_NONBLOCK);
    fcntl(err[0], F_SETFL, O_NONBLOCK);

    // Processes that the program started may hold its pipes open after it has
    // ended; so the end of the program, not of the pipes, ends this loop.
    struct pollfd fds[2] = {{.fd = out[0], .events = POLLIN}, {.fd = err[0], .events = POLLIN}};
    int status = 0, ended = 0;
    while (!ended) {
        poll(fds, 2, 50);
        pid_t got;
        while ((got = waitpid(-1, &status, WNOHANG)) > 0) {
            if (got == child) {
                ended = 1;
                break;
            }
        }
        if (fds[0].fd >= 0 && !pass_on(out[0], STDOUT_PORT)) {
            fds[0].fd = -1;
        }
        if (fds[1].fd >= 0 && !pass_on(err[0], STDERR_PORT)) {
            fds[1].fd = -1;
        }
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    report("time: %.3f\n", (double)(end.tv_sec - start.tv_sec) + (double)(end.tv_nsec - start.tv_nsec) / 1e9);
    if (WIFSIGNALED(status)) {
        report("signal: %d\n", WTERMSIG(status));
    } else {
        report("exit: %d\n", WEXITSTATUS(status));
    }
    power_off();
}
