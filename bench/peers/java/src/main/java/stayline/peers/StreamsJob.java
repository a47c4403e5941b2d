package stayline.peers;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.AppInfoParser;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.processor.api.ContextualProcessor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueIterator;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/**
 * The small job on Kafka Streams: a topic keyed by customer, a processor with a store in memory and no changelog.
 *
 * <p>Arguments: BROKER TOPIC EVENTS OUT FOLDER. It reads EVENTS records and ends; one line of JSON tells how long it took from
 * the first record to the last. Joining the group is not in the time.
 */
public final class StreamsJob {
    private static final String STORE = "detectors";
    private static final CountDownLatch DONE = new CountDownLatch(1);
    private static volatile Throwable failure;

    public static void main(String[] args) throws Exception {
        long expected = Long.parseLong(args[2]);
        StreamsBuilder builder = new StreamsBuilder();
        builder.addStateStore(Stores.keyValueStoreBuilder(
                        Stores.inMemoryKeyValueStore(STORE), Serdes.String(), new DetectorsSerde())
                .withLoggingDisabled()
                .withCachingDisabled());
        builder.stream(args[1], Consumed.with(Serdes.String(), Serdes.String()))
                .process(() -> new Detect(expected), STORE);
        try (KafkaStreams streams = new KafkaStreams(builder.build(), settings(args[0], args[4]))) {
            streams.setUncaughtExceptionHandler(error -> {
                failure = error;
                DONE.countDown();
                return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
            });
            streams.start();
            DONE.await();
        }
        if (failure != null) {
            throw new IllegalStateException(failure);
        }
        Found.write(args[3]);
        System.out.printf(
                "{\"events\": %d, \"startup_s\": %.2f, \"rss_mb\": %d, \"library\": \"kafka-streams %s\","
                        + " \"seconds\": %.4f, \"cpu_s\": %.4f}%n",
                Found.events,
                Found.startupSeconds,
                Found.peakMegabytes(),
                AppInfoParser.getVersion(),
                Found.seconds(),
                Found.cpuSeconds());
    }

    private static Properties settings(String broker, String folder) {
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, "peers");
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, broker);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, folder);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), 10_000);
        return settings;
    }

    private static final class Detect extends ContextualProcessor<String, String, Void, Void> {
        private final long expected;
        private final Call call = Call.reader("extract");
        private KeyValueStore<String, Detectors> store;

        Detect(long expected) {
            this.expected = expected;
        }

        @Override
        public void init(ProcessorContext<Void, Void> context) {
            super.init(context);
            store = context.getStateStore(STORE);
        }

        @Override
        public void process(Record<String, String> record) {
            if (Found.events == 0) {
                Found.begin();
            }
            Found.events++;
            try {
                call.read(record.value());
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
            Detectors detectors = store.get(call.customer);
            if (detectors == null) {
                detectors = new Detectors();
            }
            if (detectors.see(call.drop, call.mos)) {
                Found.fired(call.customer, call.id);
            }
            store.put(call.customer, detectors);
            if (Found.events == expected) {
                Found.end();
                keepStates();
                DONE.countDown();
            }
        }

        private void keepStates() {
            try (KeyValueIterator<String, Detectors> all = store.all()) {
                all.forEachRemaining(one -> Found.STATES.put(one.key, one.value.values()));
            }
        }
    }

    /** Every field as it is: a store of Kafka Streams holds bytes, in memory too. */
    private static final class DetectorsSerde extends Serdes.WrapperSerde<Detectors> implements Serde<Detectors> {
        DetectorsSerde() {
            super((topic, one) -> written(one), (topic, bytes) -> bytes == null ? null : read(bytes));
        }

        private static byte[] written(Detectors one) {
            ByteBuffer buffer = ByteBuffer.allocate(3 + 9 * Double.BYTES);
            buffer.put((byte) (one.seen ? 1 : 0)).put((byte) (one.rated ? 1 : 0)).put((byte) (one.changed ? 1 : 0));
            buffer.putDouble(one.dropMean).putDouble(one.mosMean).putDouble(one.mosSquaredMean);
            buffer.putDouble(one.count).putDouble(one.level).putDouble(one.increase).putDouble(one.decrease);
            return buffer.putDouble(one.increaseMin).putDouble(one.decreaseMax).array();
        }

        private static Detectors read(byte[] bytes) {
            ByteBuffer buffer = ByteBuffer.wrap(bytes);
            Detectors one = new Detectors();
            one.seen = buffer.get() == 1;
            one.rated = buffer.get() == 1;
            one.changed = buffer.get() == 1;
            one.dropMean = buffer.getDouble();
            one.mosMean = buffer.getDouble();
            one.mosSquaredMean = buffer.getDouble();
            one.count = buffer.getDouble();
            one.level = buffer.getDouble();
            one.increase = buffer.getDouble();
            one.decrease = buffer.getDouble();
            one.increaseMin = buffer.getDouble();
            one.decreaseMax = buffer.getDouble();
            return one;
        }
    }
}
