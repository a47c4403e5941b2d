package stayline.peers;

/** One customer's detectors: river's EWMean, PageHinkley (mode "both") and EWVar, operation for operation. */
public class Detectors {
    static final double FADE = 0.05;
    static final double MIN_INSTANCES = 30;
    static final double DELTA = 0.005;
    static final double THRESHOLD = 3.0;
    static final double ALPHA = 1 - 0.0001;

    public boolean seen;
    public double dropMean;
    public boolean rated;
    public double mosMean;
    public double mosSquaredMean;
    public boolean changed;
    public double count;
    public double level;
    public double increase;
    public double decrease;
    public double increaseMin = Double.POSITIVE_INFINITY;
    public double decreaseMax = -1;

    /** Takes in one call; returns whether it fires. */
    boolean see(double drop, double mos) {
        dropMean = seen ? FADE * drop + (1 - FADE) * dropMean : drop;
        seen = true;
        if (!Double.isNaN(mos)) {
            mosSquaredMean = rated ? FADE * (mos * mos) + (1 - FADE) * mosSquaredMean : mos * mos;
            mosMean = rated ? FADE * mos + (1 - FADE) * mosMean : mos;
            rated = true;
        }
        return pageHinkley(drop);
    }

    private boolean pageHinkley(double x) {
        if (changed) {
            changed = false;
            count = level = increase = decrease = 0;
            increaseMin = Double.POSITIVE_INFINITY;
            decreaseMax = -1;
        }
        count += 1;
        level += (1 / count) * (x - level);
        double deviation = x - level;
        increase = ALPHA * increase + deviation - DELTA;
        decrease = ALPHA * decrease + deviation + DELTA;
        increaseMin = Math.min(increaseMin, increase);
        decreaseMax = Math.max(decreaseMax, decrease);
        if (count >= MIN_INSTANCES) {
            changed = increase - increaseMin > THRESHOLD || decreaseMax - decrease > THRESHOLD;
        }
        return changed;
    }

    /** The state, in the order that bench/peers/job.py has. */
    double[] values() {
        double variance = mosSquaredMean - mosMean * mosMean;
        return new double[] {dropMean, variance, count, level, increase, decrease, increaseMin, decreaseMax};
    }
}
