/* The Java client on a log: admin, idempotent zstd producer, group consumer, offsets, DeleteRecords, a message that is too
 * large. Prints one line an outcome; tests/conformance/test_java.py compares them for both logs.
 *
 *     java -cp 'JARS/*' Conformance.java BOOTSTRAP TOPIC
 */
import java.time.Duration;
import java.util.*;
import java.util.concurrent.ExecutionException;
import java.util.stream.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.*;

public class Conformance {
    static String bootstrap;

    static void say(String name, Object outcome) {
        System.out.println(name + ": " + outcome);
    }

    static String failure(ThrowingRunnable action) throws InterruptedException {
        try {
            action.run();
            return "none";
        } catch (ExecutionException error) {
            return error.getCause().getClass().getSimpleName();
        } catch (Exception error) {
            return error.getClass().getSimpleName();
        }
    }

    interface ThrowingRunnable {
        void run() throws Exception;
    }

    static Properties properties(String... pairs) {
        Properties made = new Properties();
        made.put("bootstrap.servers", bootstrap);
        for (int i = 0; i < pairs.length; i += 2) made.put(pairs[i], pairs[i + 1]);
        return made;
    }

    public static void main(String[] arguments) throws Exception {
        bootstrap = arguments[0];
        String topic = arguments[1];
        try (Admin admin = Admin.create(properties())) {
            admin(admin, topic);
            produce(topic);
            consume(topic);
            offsets(admin, topic);
        }
    }

    static void admin(Admin admin, String topic) throws Exception {
        NewTopic wanted = new NewTopic(topic, 2, (short) 1).configs(Map.of("max.message.bytes", "50000"));
        admin.createTopics(List.of(wanted)).all().get();
        say("created twice", failure(() -> admin.createTopics(List.of(wanted)).all().get()));
        say("too many replicas", failure(
            () -> admin.createTopics(List.of(new NewTopic(topic + "-r", 1, (short) 3))).all().get()));
        say("wrong setting", failure(() -> admin.createTopics(
            List.of(new NewTopic(topic + "-c", 1, (short) 1).configs(Map.of("retention.ms", "soon")))).all().get()));
        say("unknown topic", failure(() -> admin.describeTopics(List.of(topic + "-u")).allTopicNames().get()));
        admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(3))).all().get();
        say("fewer partitions", failure(
            () -> admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(1))).all().get()));
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        admin.incrementalAlterConfigs(Map.of(resource, List.of(
            new AlterConfigOp(new ConfigEntry("retention.ms", "1234"), AlterConfigOp.OpType.SET)))).all().get();
        Config config = admin.describeConfigs(List.of(resource)).all().get().get(resource);
        say("settings", config.get("max.message.bytes").value() + " " + config.get("retention.ms").value());
        say("nodes", admin.describeCluster().nodes().get().size());
    }

    static void produce(String topic) throws Exception {
        Properties options = properties("compression.type", "zstd", "linger.ms", "20",
            "key.serializer", StringSerializer.class.getName(), "value.serializer", StringSerializer.class.getName());
        try (Producer<String, String> producer = new KafkaProducer<>(options)) {
            List<java.util.concurrent.Future<RecordMetadata>> sent = new ArrayList<>();
            for (int i = 0; i < 1000; i++) {
                ProducerRecord<String, String> record = new ProducerRecord<>(topic, i % 3, 1000L + i, "k" + i, "value " + i);
                record.headers().add("h", ("" + i).getBytes());
                sent.add(producer.send(record));
            }
            long last = 0;
            for (var future : sent) last = Math.max(last, future.get().offset());
            say("last offset", last);
            StringBuilder random = new StringBuilder();
            Random generator = new Random(7);
            for (int i = 0; i < 200_000; i++) random.append((char) ('!' + generator.nextInt(90)));
            say("too large", failure(() -> producer.send(new ProducerRecord<>(topic, 0, "k", random.toString())).get()));
        }
    }

    static Properties consumer(String group) {
        return properties("group.id", group, "auto.offset.reset", "earliest", "enable.auto.commit", "false",
            "session.timeout.ms", "6000", "group.protocol", "classic",
            "key.deserializer", StringDeserializer.class.getName(),
            "value.deserializer", StringDeserializer.class.getName());
    }

    static List<ConsumerRecord<String, String>> poll(Consumer<String, String> consumer, int count) {
        List<ConsumerRecord<String, String>> found = new ArrayList<>();
        long deadline = System.currentTimeMillis() + 30_000;
        while (found.size() < count && System.currentTimeMillis() < deadline) {
            for (var record : consumer.poll(Duration.ofMillis(500))) found.add(record);
        }
        return found;
    }

    static void consume(String topic) {
        String group = topic + "-group";
        try (Consumer<String, String> first = new KafkaConsumer<>(consumer(group))) {
            first.subscribe(List.of(topic));
            var found = poll(first, 1000);
            var numbers = found.stream().map(r -> Integer.parseInt(r.value().substring(6))).sorted().toList();
            say("read", numbers.equals(IntStream.range(0, 1000).boxed().toList()));
            var one = found.stream().filter(r -> r.value().equals("value 30")).findFirst().get();
            say("record 30", one.partition() + " " + one.offset() + " " + one.timestamp() + " " + one.key() + " "
                + new String(one.headers().lastHeader("h").value()));
            first.commitSync(Map.of(new TopicPartition(topic, 1), new OffsetAndMetadata(300, "here")));
        }
        try (Consumer<String, String> second = new KafkaConsumer<>(consumer(group))) {
            var partition = new TopicPartition(topic, 1);
            var committed = second.committed(Set.of(partition)).get(partition);
            say("committed", committed.offset() + " " + committed.metadata());
            second.assign(List.of(partition));
            say("rest", poll(second, 33).size());
            say("by time", second.offsetsForTimes(Map.of(partition, 0L)).get(partition).offset());
            second.seek(partition, 5_000);
            say("position kept", second.position(partition));
        }
    }

    static void offsets(Admin admin, String topic) throws Exception {
        var partition = new TopicPartition(topic, 2);
        admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(100))).all().get();
        var earliest = admin.listOffsets(Map.of(partition, OffsetSpec.earliest())).all().get().get(partition);
        var latest = admin.listOffsets(Map.of(partition, OffsetSpec.latest())).all().get().get(partition);
        say("offsets", earliest.offset() + " " + latest.offset());
        say("beyond the end", failure(
            () -> admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(9_999))).all().get()));
        String group = topic + "-group";
        say("group", admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().size());
        admin.deleteConsumerGroups(List.of(group)).all().get();
        say("deleted group", failure(() -> admin.deleteConsumerGroups(List.of(group)).all().get()));
        admin.deleteTopics(List.of(topic)).all().get();
    }
}
