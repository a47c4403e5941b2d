package stayline.peers;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
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
 * <p>Arguments: EVENTS OUT WAY RUNS. WAY is how a call is read (see {@link Call#reader}). The job runs RUNS times in this JVM;
 * one line of JSON tells the seconds of each.
 */
public final class FlinkJob {
    /** Customer, call, drop bit, MOS (NaN: not known). */
    private static final TypeInformation<Tuple4<String, String, Double, Double>> CALL =
            TypeInformation.of(new TypeHint<Tuple4<String, String, Double, Double>>() {});

    public static void main(String[] args) throws Exception {
        List<String> seconds = new ArrayList<>();
        List<String> cpuSeconds = new ArrayList<>();
        for (int run = 0; run < Integer.parseInt(args[3]); run++) {
            Found.clear();
            execute(args[0], args[2]);
            seconds.add(String.format("%.4f", Found.seconds()));
            cpuSeconds.add(String.format("%.4f", Found.cpuSeconds()));
        }
        Found.write(args[1]);
        System.out.printf(
                "{\"events\": %d, \"startup_s\": %.2f, \"rss_mb\": %d, \"library\": \"flink %s\", \"runs_s\": %s,"
                        + " \"runs_cpu_s\": %s}%n",
                Found.events,
                Found.startupSeconds,
                Found.peakMegabytes(),
                EnvironmentInformation.getVersion(),
                seconds,
                cpuSeconds);
    }

    private static void execute(String path, String way) throws Exception {
        StreamExecutionEnvironment env = StreamExecutionEnvironment.createLocalEnvironment(1, new Configuration());
        env.getConfig().enableObjectReuse();
        FileSource<String> lines =
                FileSource.forRecordStreamFormat(new TextLineInputFormat(), new Path(path)).build();
        env.fromSource(lines, WatermarkStrategy.noWatermarks(), "lines")
                .map(new Parse(way))
                .returns(CALL)
                .keyBy(call -> call.f0)
                .process(new Detect())
                .sinkTo(new DiscardingSink<>());
        env.execute("small");
    }

    /** Also notes when the job begins: behind the source, before its first line. Submission is not in the time. */
    private static final class Parse extends RichMapFunction<String, Tuple4<String, String, Double, Double>> {
        private final String way;
        private transient Call call;

        Parse(String way) {
            this.way = way;
        }

        @Override
        public void open(OpenContext context) {
            call = Call.reader(way);
            Found.begin();
        }

        @Override
        public Tuple4<String, String, Double, Double> map(String line) throws IOException {
            call.read(line);
            return Tuple4.of(call.customer, call.id, call.drop, call.mos);
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
            Found.events++;
            Detectors detectors = state.value();
            if (detectors == null) {
                detectors = new Detectors();
                context.timerService().registerEventTimeTimer(Long.MAX_VALUE);
            }
            if (detectors.see(call.f2, call.f3)) {
                Found.fired(call.f0, call.f1);
                out.collect(Tuple2.of(call.f0, call.f1));
            }
            state.update(detectors);
        }

        @Override
        public void onTimer(long timestamp, OnTimerContext context, Collector<Tuple2<String, String>> out)
                throws IOException {
            Found.STATES.put(context.getCurrentKey(), state.value().values());
        }

        @Override
        public void close() {
            Found.end();
        }
    }
}
