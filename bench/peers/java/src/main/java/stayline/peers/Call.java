package stayline.peers;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;

/** The five fields of a call that the small job needs; one object is read into over and over. */
abstract class Call {
    String customer;
    String id;
    /** Answered, and cleared by the network. */
    double drop;
    /** NaN: not known. */
    double mos;

    /** Reads another call into this object. */
    abstract void read(String line) throws IOException;

    /** WAY is "jackson" or "extract". */
    static Call reader(String way) {
        return way.equals("jackson") ? new Jackson() : new Extract();
    }

    private static double dropBit(boolean answered, String releasedBy) {
        return answered && "network".equals(releasedBy) ? 1.0 : 0.0;
    }

    /** A Jackson tree a record. */
    private static final class Jackson extends Call {
        private static final ObjectMapper MAPPER = new ObjectMapper();

        @Override
        void read(String line) throws IOException {
            JsonNode call = MAPPER.readTree(line);
            JsonNode rating = call.get("mos");
            customer = call.get("customer_id").textValue();
            id = call.get("call_id").textValue();
            drop = dropBit(call.hasNonNull("answer_ms"), call.path("released_by").textValue());
            mos = rating == null || rating.isNull() ? Double.NaN : rating.doubleValue();
        }
    }

    /**
     * The fields found by their names in the text: no check of anything, no escapes. Each is looked for behind the one before,
     * and if not there from the beginning.
     */
    private static final class Extract extends Call {
        private int at;

        @Override
        void read(String line) {
            at = 0;
            id = value(line, "\"call_id\":");
            customer = value(line, "\"customer_id\":");
            String answer = value(line, "\"answer_ms\":");
            drop = dropBit(answer != null, value(line, "\"released_by\":"));
            String rating = value(line, "\"mos\":");
            mos = rating == null ? Double.NaN : Double.parseDouble(rating);
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
}
