import org.apache.rocketmq.broker.BrokerStartup;
import org.apache.rocketmq.namesrv.NamesrvStartup;

/** Starts the name server and the broker of RocketMQ in one process, by the two files of the folder that is given. */
public final class RunRocketMq {
    public static void main(String[] words) {
        NamesrvStartup.main0(new String[] {"-c", words[0] + "/namesrv.conf"});
        BrokerStartup.main(new String[] {"-c", words[0] + "/broker.conf"});
    }
}
