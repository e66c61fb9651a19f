/** The words of all screens, one after the other: together they compress better. */
import "./components/text";
import "./shell/text";
import "./shell/jobs-text";
import "./screens/annotate/text";
import "./screens/operate/text";
import "./screens/train/text";
import "./screens/models/text";
import "./screens/try/text";
import "./screens/data/text";
import "./screens/data/queue-text";
import "./screens/loop/text";
