package stayline.peers;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
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
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.functions.RichMapFunction;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.TypeHint;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.api.java.tuple.Tuple4;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.file.src.FileSource;
import org.apache.flink.connector.file.src.reader.TextLineInputFormat;
import org.apache.flink.core.fs.Path;
import org.apache.flink.runtime.util.EnvironmentInformation;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink;
import org.apache.flink.util.Collector;

/**
 * The small job on Flink: lines, fields, keyBy, a keyed process function with its state on the heap.
 *
 * <p>Arguments: EVENTS OUT WAY RUNS. WAY is "jackson" (a tree a record) or "extract" (the five fields cut out of the line by
 * hand: no check of anything, no escapes). The job runs RUNS times in this JVM; one line of JSON tells the seconds of each.
 */
public final class SmallJob {
    /** Customer, call, drop bit, MOS (NaN: not known). */
    private static final TypeInformation<Tuple4<String, String, Double, Double>> CALL =
            TypeInformation.of(new TypeHint<Tuple4<String, String, Double, Double>>() {});

    // All operators run in this JVM, so what they find needs no sink; begun and ended exclude the submission of the job.
    private static final List<String> FIRINGS = new ArrayList<>();
    private static final Map<String, double[]> STATES = new TreeMap<>();
    private static final OperatingSystemMXBean SYSTEM =
            (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
    private static long begunNs;
    private static long begunCpuNs;
    private static long endedNs;
    private static long endedCpuNs;
    private static long events;
    private static double startupSeconds = -1;

    public static void main(String[] args) throws Exception {
        List<String> seconds = new ArrayList<>();
        List<String> cpuSeconds = new ArrayList<>();
        for (int run = 0; run < Integer.parseInt(args[3]); run++) {
            FIRINGS.clear();
            STATES.clear();
            events = 0;
            execute(args[0], args[2]);
            seconds.add(String.format("%.4f", (endedNs - begunNs) / 1e9));
            cpuSeconds.add(String.format("%.4f", (endedCpuNs - begunCpuNs) / 1e9));
        }
        write(args[1]);
        System.out.printf(
                "{\"events\": %d, \"startup_s\": %.2f, \"rss_mb\": %d, \"library\": \"flink %s\", \"runs_s\": %s,"
                        + " \"runs_cpu_s\": %s}%n",
                events, startupSeconds, peakMegabytes(), EnvironmentInformation.getVersion(), seconds, cpuSeconds);
    }

    private static void execute(String path, String way) throws Exception {
        StreamExecutionEnvironment env = StreamExecutionEnvironment.createLocalEnvironment(1, new Configuration());
        env.getConfig().enableObjectReuse();
        FileSource<String> lines =
                FileSource.forRecordStreamFormat(new TextLineInputFormat(), new Path(path)).build();
        env.fromSource(lines, WatermarkStrategy.noWatermarks(), "lines")
                .map(way.equals("jackson") ? new Jackson() : new Extract())
                .returns(CALL)
                .keyBy(call -> call.f0)
                .process(new Detect())
                .sinkTo(new DiscardingSink<>());
        env.execute("small");
    }

    private static void write(String out) throws IOException {
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

    private static long peakMegabytes() throws IOException {
        return Files.readAllLines(Paths.get("/proc/self/status")).stream()
                .filter(line -> line.startsWith("VmHWM"))
                .mapToLong(line -> Long.parseLong(line.replaceAll("\\D", "")) >> 10)
                .findFirst()
                .orElse(0);
    }

    private static double dropBit(boolean answered, String releasedBy) {
        return answered && "network".equals(releasedBy) ? 1.0 : 0.0;
    }

    /** Notes when the job begins: behind the source, before its first line. */
    private abstract static class Parse extends RichMapFunction<String, Tuple4<String, String, Double, Double>> {
        @Override
        public void open(OpenContext context) {
            if (startupSeconds < 0) {
                Instant started = ProcessHandle.current().info().startInstant().orElseThrow();
                startupSeconds = Duration.between(started, Instant.now()).toMillis() / 1e3;
            }
            begunNs = System.nanoTime();
            begunCpuNs = SYSTEM.getProcessCpuTime();
        }
    }

    /** A Jackson tree a record. */
    private static final class Jackson extends Parse {
        private static final ObjectMapper MAPPER = new ObjectMapper();

        @Override
        public Tuple4<String, String, Double, Double> map(String line) throws IOException {
            JsonNode call = MAPPER.readTree(line);
            JsonNode mos = call.get("mos");
            return Tuple4.of(
                    call.get("customer_id").textValue(),
                    call.get("call_id").textValue(),
                    dropBit(call.hasNonNull("answer_ms"), call.path("released_by").textValue()),
                    mos == null || mos.isNull() ? Double.NaN : mos.doubleValue());
        }
    }

    /** The fields found by their names in the text; each is looked for behind the one before, and if not there from the beginning. */
    private static final class Extract extends Parse {
        private transient int at;

        @Override
        public Tuple4<String, String, Double, Double> map(String line) {
            at = 0;
            String call = value(line, "\"call_id\":");
            String customer = value(line, "\"customer_id\":");
            String answer = value(line, "\"answer_ms\":");
            String releasedBy = value(line, "\"released_by\":");
            String mos = value(line, "\"mos\":");
            return Tuple4.of(
                    customer, call, dropBit(answer != null, releasedBy), mos == null ? Double.NaN : Double.parseDouble(mos));
        }

        private String value(String line, String name) {
            int found = line.indexOf(name, at);
            if (found < 0) {
                found = line.indexOf(name);
                if (found < 0) {
                    return null;
                }
            }
            int from = found + name.length();
            if (line.charAt(from) == '"') {
                at = line.indexOf('"', from + 1);
                return line.substring(from + 1, at);
            }
            at = from;
            while (line.charAt(at) != ',' && line.charAt(at) != '}') {
                at++;
            }
            return line.charAt(from) == 'n' ? null : line.substring(from, at);
        }
    }

    /** The keyed step. A timer at the end of all time gives out the final states. */
    private static final class Detect
            extends KeyedProcessFunction<String, Tuple4<String, String, Double, Double>, Tuple2<String, String>> {
        private transient ValueState<Detectors> state;

        @Override
        public void open(OpenContext context) {
            state = getRuntimeContext().getState(new ValueStateDescriptor<>("detectors", Detectors.class));
        }

        @Override
        public void processElement(
                Tuple4<String, String, Double, Double> call, Context context, Collector<Tuple2<String, String>> out)
                throws IOException {
            events++;
            Detectors detectors = state.value();
            if (detectors == null) {
                detectors = new Detectors();
                context.timerService().registerEventTimeTimer(Long.MAX_VALUE);
            }
            if (detectors.see(call.f2, call.f3)) {
                FIRINGS.add("F\t" + call.f0 + "\t" + call.f1 + "\tdrop");
                out.collect(Tuple2.of(call.f0, call.f1));
            }
            state.update(detectors);
        }

        @Override
        public void onTimer(long timestamp, OnTimerContext context, Collector<Tuple2<String, String>> out)
                throws IOException {
            STATES.put(context.getCurrentKey(), state.value().values());
        }

        @Override
        public void close() {
            endedNs = System.nanoTime();
            endedCpuNs = SYSTEM.getProcessCpuTime();
        }
    }
}
