package stayline.peers;

import com.sun.management.OperatingSystemMXBean;
import java.io.IOException;
import java.io.PrintWriter;
import java.lang.management.ManagementFactory;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/** What a job found, and when: its operators run in this JVM, so what they find needs no sink. */
final class Found {
    static final List<String> FIRINGS = new ArrayList<>();
    static final Map<String, double[]> STATES = new TreeMap<>();
    static long events;
    static double startupSeconds = -1;

    private static final OperatingSystemMXBean SYSTEM =
            (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
    private static long begunNs;
    private static long begunCpuNs;
    private static long endedNs;
    private static long endedCpuNs;

    private Found() {}

    static void clear() {
        FIRINGS.clear();
        STATES.clear();
        events = 0;
    }

    /** The job begins now: what came before was start-up. */
    static void begin() {
        if (startupSeconds < 0) {
            Instant started = ProcessHandle.current().info().startInstant().orElseThrow();
            startupSeconds = Duration.between(started, Instant.now()).toMillis() / 1e3;
        }
        begunNs = System.nanoTime();
        begunCpuNs = SYSTEM.getProcessCpuTime();
    }

    static void end() {
        endedNs = System.nanoTime();
        endedCpuNs = SYSTEM.getProcessCpuTime();
    }

    static void fired(String customer, String call) {
        FIRINGS.add("F\t" + customer + "\t" + call + "\tdrop");
    }

    static double seconds() {
        return (endedNs - begunNs) / 1e9;
    }

    static double cpuSeconds() {
        return (endedCpuNs - begunCpuNs) / 1e9;
    }

    /** Firings and states as bench/peers/job.py writes them. */
    static void write(String out) throws IOException {
        try (PrintWriter file = new PrintWriter(Files.newBufferedWriter(Paths.get(out), StandardCharsets.UTF_8))) {
            FIRINGS.forEach(firing -> file.print(firing + "\n"));
            STATES.forEach((customer, values) -> {
                StringBuilder line = new StringBuilder("S\t").append(customer);
                for (double value : values) {
                    line.append('\t').append(String.format("%016x", Double.doubleToLongBits(value)));
                }
                file.print(line.append('\n'));
            });
        }
    }

    static long peakMegabytes() throws IOException {
        return Files.readAllLines(Paths.get("/proc/self/status")).stream()
                .filter(line -> line.startsWith("VmHWM"))
                .mapToLong(line -> Long.parseLong(line.replaceAll("\\D", "")) >> 10)
                .findFirst()
                .orElse(0);
    }
}
