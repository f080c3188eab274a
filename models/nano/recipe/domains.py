"""What is decided in each domain: verbs, arguments and the ways people ask for them.

A verb is (names, abouts, arguments, patterns, held-out patterns). Patterns are those of `patterns`; `{0}` is the first
argument as a person would say it. Held-out patterns are never trained on; they make the unseen-phrasing suite.
An argument is (names, role). Roles: ("pick", pool), ("fixed", {choice: [spoken forms]}), ("num", kind), ("bool", yes, no), ("text",).
"""
import names as n

ON_OFF = ("fixed", {"on": ["on"], "off": ["off"]})
HVAC_MODE = ("fixed", {"off": ["off"], "heat": ["heating", "heat"], "cool": ["cooling", "cool"], "auto": ["automatic", "auto"], "dry": ["drying", "dry"], "eco": ["eco", "saving"]})
PROGRAM = ("fixed", {"workday": ["workday", "working day"], "weekend": ["weekend"], "holiday": ["holiday", "vacation"], "night": ["night"], "away": ["away"], "party": ["party"], "cleaning": ["cleaning"]})
GRASP = ("fixed", {"suction": ["suction", "the vacuum cup"], "pinch": ["pinch", "a pinch grip"], "parallel": ["parallel", "the parallel gripper"], "wrap": ["wrap", "a wrap grip"], "magnetic": ["magnetic", "the magnet"], "soft": ["soft", "soft fingers"]})
PRIORITY = ("fixed", {"low": ["low"], "medium": ["medium"], "normal": ["normal"], "high": ["high"], "urgent": ["urgent"], "critical": ["critical"]})
REPORT = ("fixed", {"summary": ["summary", "short"], "full": ["full", "complete"], "photo": ["photo", "picture"], "thermal": ["thermal"], "video": ["video"], "table": ["table"]})
MEASURE = ("fixed", {"temperature": ["temperature", "heat"], "vibration": ["vibration"], "pressure": ["pressure"], "noise": ["noise", "sound"], "leak": ["leak", "leakage"], "humidity": ["humidity"], "level": ["level"], "corrosion": ["corrosion", "rust"]})
GRIPPER = ("fixed", {"open": ["open"], "close": ["close"]})
DIRECTION = ("fixed", {"left": ["left"], "right": ["right"], "up": ["up"], "down": ["down"], "forward": ["forward", "ahead"], "back": ["back", "backwards"]})
FAULT = ("fixed", {"obstacle": ["obstacle"], "broken_strand": ["broken strand"], "ice": ["ice"], "hotspot": ["hot spot", "hotspot"], "bird_nest": ["bird nest", "nest"], "tree": ["tree", "branch"], "corrosion": ["corrosion", "rust"], "missing_pin": ["missing pin"]})
SEVERITY = ("fixed", {"info": ["info", "informational"], "warning": ["warning"], "alarm": ["alarm"], "critical": ["critical"], "minor": ["minor"], "major": ["major"]})
DEFECT = ("fixed", {"scratch": ["scratch", "scratches"], "dent": ["dent", "dents"], "crack": ["crack", "cracks"], "burr": ["burr", "burrs"], "stain": ["stain", "stains"], "size": ["wrong size", "size"], "color": ["wrong color", "color"], "missing": ["missing part", "missing"]})
AXIS = ("fixed", {"x": ["x"], "y": ["y"], "z": ["z"], "a": ["a"], "b": ["b"]})
WORK = ("fixed", {"replace": ["replace", "change"], "inspect": ["inspect", "check"], "lubricate": ["lubricate", "grease"], "clean": ["clean"], "adjust": ["adjust"], "repair": ["repair", "fix"]})
SIZE = ("fixed", {"small": ["small"], "medium": ["medium"], "large": ["large"], "xl": ["xl", "extra large"]})
LANE = ("fixed", {"left": ["left"], "right": ["right"], "middle": ["middle"], "scrap": ["scrap"], "rework": ["rework"]})

P = ("pick", "place")
D = ("pick", "device")
I = ("pick", "item")
W = ("pick", "waypoint")
A = ("pick", "asset")
C = ("pick", "part")


def num(kind):
    return ("num", kind)


ROOM = ["room", "zone", "area", "space", "place", "section"]
DEVICE = ["device", "unit", "machine", "name", "target", "id"]
ITEM = ["item", "product", "article", "sku", "object", "goods"]
POINT = ["waypoint", "location", "position", "goal", "station", "destination", "target", "bin", "shelf"]
ASSET = ["asset", "target", "object", "equipment", "point"]
PART = ["part", "component", "piece", "module"]

VERBS = {
    "hvac": [
        (["set_temperature", "set_temp", "set_target", "heat_to", "temperature", "setpoint", "thermostat"],
         ["change the target temperature of a room", "set how warm it is", "temperature set-point", "set the temperature"],
         [(ROOM, P), (["celsius", "degrees", "target", "temperature", "value", "setpoint"], num("celsius"))],
         ["[set|turn|put|bring|change] [the |]{0} [to|at] {1}", "[make|heat|warm|get] [the |]{0} [to |up to |]{1}", "[set|change|adjust] the [temperature|setpoint|thermostat] [in|of|for] [the |]{0} to {1}",
          "{1} [in|for] [the |]{0}", "[i want|i would like|we need] {1} in [the |]{0}", "[the |]{0} should be [at |]{1}", "[the |]{0} to {1}", "temperature {0} {1}", "[target|setpoint] for {0} is {1}", "[cool|bring] [the |]{0} [down |]to {1}"],
         ["let [the |]{0} have {1}", "[the |]{0} needs to reach {1}", "aim for {1} in [the |]{0}", "please keep [the |]{0} at {1} today", "go for {1} over in [the |]{0}"]),
        (["set_mode", "mode", "switch_mode", "climate_mode", "hvac_mode"],
         ["switch heating or cooling", "choose the operating mode", "set the climate mode"],
         [(["mode", "state", "operation"], HVAC_MODE)],
         ["[switch|turn|set|change] [the |][system|climate|hvac|mode|unit] to {0}", "[go to|use|start|select] {0} mode", "{0} mode [please|now|]", "[mode|climate|system] {0}", "[we need|i want] {0}", "put [it|the system] [in|into] {0} mode"],
         ["change over to {0}", "let the system run on {0}", "{0} operation from now on"]),
        (["set_fan", "fan", "ventilate", "set_ventilation", "fan_power", "airflow"],
         ["ventilation power of a room", "set the fan of a zone", "how strongly to ventilate", "fan speed"],
         [(ROOM, P), (["percent", "power", "level", "speed", "duty"], num("percent"))],
         ["[set|turn|run|put] the [fan|ventilation|air|airflow] [in|of|for] [the |]{0} [to|at] {1}", "ventilate [the |]{0} [at|with] {1}", "{0} [fan|ventilation] [to |at |]{1}", "[fan|ventilation] [in |]{0} {1}", "[i want|give me] {1} [ventilation|fan] in [the |]{0}", "run [the |]{0} fan at {1}"],
         ["let air through [the |]{0} with {1}", "blow [the |]{0} out at {1}", "use {1} fan power for [the |]{0}"]),
        (["set_schedule", "schedule", "program", "day_program", "set_program"],
         ["choose the program of the day", "set the schedule", "daily schedule to follow"],
         [(["program", "schedule", "plan", "profile"], PROGRAM)],
         ["[use|choose|select|start|run|load] the {0} [program|schedule|plan|profile]", "[set|switch|change] the [schedule|program|plan] to {0}", "it is a {0} [today|]", "{0} [program|schedule] [please|now|]", "schedule {0}", "switch to {0} schedule"],
         ["today we follow the {0} plan", "go by the {0} schedule", "treat today as {0}"]),
        (["switch_light", "light", "lights", "lighting", "set_light"],
         ["switch the light in a room", "lights on or off", "control the lamps"],
         [(ROOM, P), (["state", "power", "switch"], ON_OFF)],
         ["[turn|switch] {1} the [light|lights|lamp] in [the |]{0}", "[turn|switch] the {0} [light|lights] {1}", "[light|lights] {1} in [the |]{0}", "{0} [light|lights|lamp] {1}", "[put|get] the [light|lights] {1} in [the |]{0}"],
         ["i want the lights {1} in [the |]{0}", "make it lights {1} for [the |]{0}", "[the |]{0}: lights {1}"]),
        (["set_blind", "blinds", "shade", "move_blind", "shutter"],
         ["move the blinds of a room", "how far the shades are closed"],
         [(ROOM, P), (["percent", "position", "closed"], num("percent"))],
         ["[set|move|put|close|lower] the [blind|blinds|shade|shades|shutter] [in|of] [the |]{0} to {1}", "{0} [blinds|shades|shutter] [to|at] {1}", "[blinds|shades] {0} {1}", "[move|bring] [the |]{0} [blinds|shades] to {1}"],
         ["shade [the |]{0} at {1}", "i need the blinds at {1} in [the |]{0}"]),
        (["boost", "boost_heat", "extra_heat", "boost_zone"],
         ["heat a room strongly for some minutes", "short heating boost"],
         [(ROOM, P), (["minutes", "duration", "time"], num("minutes"))],
         ["boost [the |]{0} for {1}", "[give|run] [the |]{0} a boost [of|for] {1}", "boost heating [in|of] [the |]{0} for {1}", "{1} boost [in|for] [the |]{0}", "extra heat in [the |]{0} for {1}"],
         ["push [the |]{0} heating for {1}", "[the |]{0} could use a boost of {1}"]),
    ],
    "conveyor": [
        (["accept", "pass", "ok", "good", "let_pass", "release"], ["let the part pass", "accept the part", "part is good"], [],
         ["[accept|pass|release|take] [the|this] [part|piece|one]", "let [the part|it|this one] [pass|through|go]", "[the |this |][part|piece] is [fine|good|ok|okay]", "[looks|all] good [let it pass|pass it|]", "accept [it|]"],
         ["this one may go on", "wave it through", "nothing wrong with this piece"]),
        (["reject", "discard", "scrap", "eject", "kick_out", "push_off"], ["push the part off the belt", "reject the part", "throw the part out", "sort the part out as bad"], [],
         ["[reject|discard|scrap|eject] [the|this] [part|piece|one]", "[throw|kick|push|sort] [it|the part|this one] out", "[the |this |][part|piece] is [bad|defective|broken|faulty]", "reject [it|]", "push [it|the part] off [the belt|]"],
         ["this one is no good", "get rid of this piece", "bad part, away with it"]),
        (["slow_down", "slow", "set_belt", "belt_speed", "reduce_speed", "run_slower"],
         ["run the belt slower", "set the speed of the belt", "slow the line down"],
         [(["percent", "speed", "level", "power"], num("percent"))],
         ["slow [down |][the belt |the line |]to {0}", "[set|reduce|change] the [belt|line|conveyor] [speed |]to {0}", "run [the belt |the line |]at {0}", "[belt|line] [speed |]{0}", "bring the [belt|line] down to {0}", "[slower|speed]: {0}"],
         ["let the belt crawl at {0}", "take the line back to {0}", "only {0} on the belt please"]),
        (["stop", "halt", "stop_belt", "stop_line", "hold_belt"], ["stop the belt", "halt the line", "stop the conveyor"], [],
         ["[stop|halt] [the belt|the line|the conveyor|everything|it|]", "[stop|halt] [now|immediately|at once]", "the [belt|line] must stop", "hold the [belt|line]", "bring the [belt|line|conveyor] to a [stop|halt]"],
         ["no more movement on the belt", "freeze the line", "kill the belt drive"]),
        (["start", "resume", "start_belt", "run_belt", "restart"], ["start the belt", "run the line again", "start the conveyor"], [],
         ["[start|restart|resume|run] [the belt|the line|the conveyor]", "[start|resume] [again|now|]", "let the [belt|line] run", "get the [belt|line|conveyor] [going|moving|running]"],
         ["belt back in motion", "carry on with the line"]),
        (["mark", "mark_defect", "flag", "log_defect", "note_defect"], ["record a defect of the part", "mark what is wrong with the part"],
         [(["defect", "kind", "reason", "fault"], DEFECT)],
         ["[mark|flag|log|record|note] [a |the |]{0} [on the part|on this one|]", "[this|the] part has [a |]{0}", "[defect|fault]: {0}", "there is [a |]{0} on [the|this] [part|piece]"],
         ["put down {0} as the problem", "i can see [a |]{0} here, write it down"]),
        (["divert", "sort", "route", "send_to", "lane"], ["send the part to a lane", "route the part"],
         [(["lane", "exit", "track", "chute"], LANE)],
         ["[divert|send|route|sort] [it|the part|this one|this piece] to [the |]{0} [lane|exit|chute|]", "[use|take] the {0} [lane|exit|chute]", "{0} [lane|chute] [for this one|please|]"],
         ["this piece belongs in [the |]{0}", "off to [the |]{0} with this part"]),
    ],
    "picking": [
        (["pick", "pick_item", "fetch", "take", "collect", "grab"], ["take items from a place", "pick goods at a location", "fetch items with the gripper"],
         [(POINT, W), (ITEM, I), (["count", "quantity", "amount", "pieces", "number"], num("count")), (["grasp", "grip", "tool", "method"], GRASP)],
         ["[pick|take|get|fetch|grab] {2} [of |]{1} [from|at|out of] [the |]{0} [with|using] {3}", "[go to|at] [the |]{0} [and |][pick|take|get|grab] {2} {1} [with|using] {3}", "{2} {1} [from|at] {0} [with|using|by] {3}", "{0}: {2} x {1}, {3}", "[from|at] {0} [pick|take] {2} {1}, grasp {3}"],
         ["i need {2} {1}, they are at {0}, use {3}", "use {3} for {2} {1} out of {0}"]),
        (["pick", "pick_item", "fetch", "get", "collect"], ["take items from a place", "pick goods at a location", "fetch goods"],
         [(ITEM, I), (["count", "quantity", "amount", "pieces"], num("count")), (POINT, W)],
         ["[pick|take|get|fetch|grab|collect] {1} [of |pieces of |]{0} [from|at|out of] [the |]{2}", "[go to|drive to] [the |]{2} [and |][pick|take|get] {1} {0}", "{1} {0} [from|at|in] {2}", "{2}: {1} {0}", "[bring|get] me {1} {0} from [the |]{2}", "{1} x {0} at {2}"],
         ["i need {1} {0}, look in {2}", "we are short of {1} {0}, they are in {2}", "out of {2} come {1} {0}"]),
        (["move_to", "go_to", "drive", "navigate", "travel", "goto"], ["drive to a place", "go to a location", "move the robot to a waypoint"],
         [(POINT, W)],
         ["[go|drive|move|head|travel] to [the |]{0}", "[navigate|proceed|continue] to [the |]{0}", "[your next stop is|next stop|next:] {0}", "[come|return] to [the |]{0}", "we need you at [the |]{0}", "to {0}"],
         ["make your way over to [the |]{0}", "be at [the |]{0} next", "{0} is where you should go"]),
        (["place", "drop", "put", "deliver", "unload", "put_down"], ["put items down at a place", "deliver the load", "drop goods at a location"],
         [(ITEM, I), (POINT, W)],
         ["[place|put|drop|deliver|leave] [the |]{0} [at|on|in|to] [the |]{1}", "[bring|take] [the |]{0} to [the |]{1}", "{0} [goes|go|belongs] to {1}", "unload [the |]{0} at [the |]{1}"],
         ["the {0} should end up at {1}", "hand [the |]{0} over at {1}"]),
        (["scan", "scan_code", "read_label", "identify"], ["scan the label at a place", "read the code of an item"],
         [(POINT, W)],
         ["scan [the label at |the code at |][the |]{0}", "read the [label|code|barcode] [at|of|on] [the |]{0}", "[check|identify] the code [at|of] {0}"],
         ["what is printed at {0} must be scanned", "point the scanner at {0}"]),
        (["charge", "dock", "go_charge", "recharge", "dock_robot"], ["go to the charger", "charge the battery", "drive to the dock"], [],
         ["[go|drive|return] to the [charger|dock|charging station]", "[charge|recharge] [the battery|yourself|now|]", "[dock|dock now|go charge]", "battery needs charging"],
         ["get some power into the battery", "time for the charging dock"]),
        (["count_stock", "count", "inventory", "check_stock"], ["count the stock at a place", "take inventory of a location"],
         [(POINT, W)],
         ["count [the stock |the items |everything ][at|in|on] [the |]{0}", "[do|take] [an |the |]inventory [of|at] [the |]{0}", "[check|verify] the stock [at|in] [the |]{0}"],
         ["go through {0} and tally the goods", "stock take at {0}"]),
    ],
    "inspection": [
        (["inspect", "check", "examine", "survey", "inspect_asset"], ["inspect an object and report", "measure something at an object", "check equipment"],
         [(ASSET, A), (["measure", "measurement", "quantity", "sensor", "check"], MEASURE), (["report", "output", "format"], REPORT)],
         ["[inspect|check|examine] [the |]{1} [of|at|on] [the |]{0} [and |][send|make|write|give me] a {2} report", "[measure|check] {1} at [the |]{0}, {2} report", "{0}: {1}, {2} report", "[go to|drive to] [the |]{0}, measure {1} [and|,] report {2}", "a {2} report on {1} [of|at] [the |]{0}"],
         ["i want to know about {1} at {0} as a {2} report", "look into the {1} of {0}, {2} report afterwards"]),
        (["inspect", "check", "measure", "take_reading", "survey"], ["measure something at an object", "take a reading", "check a value at equipment"],
         [(ASSET, A), (["measure", "measurement", "quantity", "kind", "type"], MEASURE)],
         ["[inspect|check|examine] [the |]{1} [of|at|on] [the |]{0}", "[measure|read|take] [the |]{1} [at|of] [the |]{0}", "{0}: {1}", "[go to|drive to] [the |]{0} [and |]measure {1}", "[inspect|check] [the |]{0} for {1}", "do a {1} [check|measurement] [at|on] [the |]{0}"],
         ["we should look at the {1} of {0}", "get me {1} numbers from {0}"]),
        (["visit", "go_to", "approach", "move_to", "travel_to"], ["go to an object", "approach equipment", "travel to a target"],
         [(ASSET, A)],
         ["[go|drive|move|walk|fly] to [the |]{0}", "[approach|visit] [the |]{0}", "next [target|stop] [is |]{0}", "proceed to [the |]{0}"],
         ["make your way to {0}", "{0} is up next"]),
        (["photograph", "take_photo", "photo", "capture", "snapshot"], ["take a picture of an object", "photograph equipment"],
         [(ASSET, A)],
         ["[take|make] a [photo|picture|snapshot] of [the |]{0}", "photograph [the |]{0}", "[photo|picture] of {0}", "[capture|get] an image of [the |]{0}"],
         ["show me {0} in a picture", "i want to see {0} on camera"]),
        (["return_home", "home", "go_home", "end_mission", "return_to_base"], ["end the mission and return", "go back to base"], [],
         ["[return|go|come|drive] [home|back|back to base|to base]", "[end|finish|abort] the [mission|tour|round]", "[mission|tour] [is |]over", "back to [base|the start]"],
         ["that was all, come back", "call it a day and head home"]),
        (["wait", "pause", "hold", "stay"], ["wait some time at the present place", "pause the mission"],
         [(["seconds", "duration", "time"], num("seconds"))],
         ["[wait|pause|hold|stay] [for |]{0}", "[hold|stay] [there|here|position] for {0}", "take a break of {0}", "pause the [mission|tour] for {0}"],
         ["do nothing for {0}, then go on", "give it {0}"]),
        (["send_report", "report", "make_report", "file_report"], ["send a report of the tour", "choose the kind of report"],
         [(["kind", "report", "format", "type"], REPORT)],
         ["[send|make|write|file|prepare] [a|the] {0} report", "{0} report [please|now|]", "report [as|in] {0}", "give me [a|the] {0} report"],
         ["wrap it up as a {0} report", "what i need is a {0} report"]),
    ],
    "cell": [
        (["move_axis", "jog", "move", "move_joint", "shift"], ["move an axis by a distance", "jog one axis"],
         [(["axis", "joint", "direction"], AXIS), (["millimeters", "distance", "mm", "by", "amount"], num("mm"))],
         ["[move|jog|shift|drive] [axis |the |]{0} [axis |][by |]{1}", "{0} [axis |]by {1}", "jog {0} {1}", "[move|shift] {1} [in|along|on] {0}", "axis {0}: {1}"],
         ["i need {1} more on {0}", "{0} should travel {1}"]),
        (["move_to", "go_to", "move_pose", "goto_pose", "drive_to"], ["move the arm to a taught position", "go to a pose at a speed"],
         [(["pose", "position", "point", "target"], W), (["speed", "velocity", "percent", "rate"], num("percent"))],
         ["[move|go|drive] [the arm |]to [pose |position |]{0} [at|with] {1}", "{0} [at|with] {1} [speed|]", "[arm|robot] to {0}, speed {1}", "approach {0} [at|with] {1}"],
         ["take {0} as the next pose with {1}", "{1} on the way to {0}"]),
        (["gripper", "grip", "set_gripper", "hand", "clamp"], ["open or close the gripper", "control the gripper"],
         [(["state", "command", "position"], GRIPPER)],
         ["{0} the [gripper|hand|clamp|fingers]", "[gripper|hand|clamp] {0}", "[please |]{0} [it|the gripper]"],
         ["have the fingers {0}", "the gripper must {0}"]),
        (["grip_force", "set_force", "clamp_force", "force"], ["set the force of the gripper", "how hard the gripper holds"],
         [(["newton", "force", "value", "strength"], num("newton"))],
         ["[set|change|limit] the [gripper |grip |]force to {0}", "[grip|hold|clamp] [it |]with {0}", "[grip |]force {0}", "use {0} [of |]force"],
         ["no more and no less than {0} for the grip", "squeeze at {0}"]),
        (["set_speed", "speed", "arm_speed", "override", "velocity"], ["set the speed of the arm", "speed override of the robot"],
         [(["percent", "speed", "value", "override"], num("percent"))],
         ["[set|change|reduce|raise] the [arm |robot |]speed to {0}", "[run|move|go] at {0} [speed|]", "[speed|override] {0}", "slow the [arm|robot] to {0}"],
         ["from now on work with {0} of the speed", "keep the arm at {0}"]),
        (["set_torque", "torque", "tighten", "screw", "fasten"], ["tighten with a torque", "set the torque of the screwdriver", "torque of the tool"],
         [(["torque", "value", "newton_meters", "nm"], num("torque"))],
         ["[set|limit|change] [the |]torque to {0}", "tighten [it |the screw |the bolt |][with|to|at] {0}", "torque {0}", "[fasten|screw] [it |]with {0}"],
         ["give the bolt {0}", "the screw gets {0}"]),
        (["home", "home_arm", "go_home", "reference", "park"], ["move the arm to its home position", "park the robot"], [],
         ["[home|park|reference] [the arm|the robot|it|]", "[go|move|return] [to |]home", "[arm|robot] [to |]home [position|]", "bring the [arm|robot] home"],
         ["fold the arm back to where it started", "parking position please"]),
        (["weld", "run_program", "start_job", "run_job", "execute"], ["run a stored job", "start a program of the cell"],
         [(["job", "program", "recipe", "task"], ("pick", "fresh")), (["count", "cycles", "repeat", "times"], num("count"))],
         ["[run|start|execute] [job |program |recipe |]{0} {1} times", "[do|repeat] [job |program |]{0} {1} times", "{1} [cycles|runs|times] of [job |program |]{0}", "[job|program] {0}, {1} [cycles|times]"],
         ["{0} should be done {1} times", "let {0} loop {1} times"]),
    ],
    "maintenance": [
        (["open_ticket", "ticket", "create_ticket", "report_issue", "work_order"], ["open a maintenance ticket for a part", "create a work order"],
         [(PART, C), (["priority", "urgency", "level"], PRIORITY)],
         ["[open|create|make|write|raise] a {1} [priority |]ticket for [the |]{0}", "[ticket|work order] for [the |]{0}, [priority |]{1}", "[the |]{0} needs [service|maintenance|attention], [priority |]{1}", "{1} [priority |]: {0} [is broken|is worn|needs service]", "report [the |]{0} with {1} priority", "{0} {1} priority"],
         ["somebody should see to {0}, it is {1}", "put {0} on the list as {1}"]),
        (["schedule_work", "work", "plan_work", "maintain", "service"], ["plan work on a part", "say what is to be done to a part"],
         [(["work", "task", "action_kind", "job"], WORK), (PART, C), (["hours", "within", "due"], num("hours"))],
         ["{0} [the |]{1} within {2}", "[please |]{0} [the |]{1} in {2}", "[plan|schedule] to {0} [the |]{1} within {2}", "we have {2} to {0} [the |]{1}", "in {2}: {0} {1}"],
         ["{2} at most until someone must {0} {1}", "don't wait longer than {2} to {0} {1}"]),
        (["order_part", "order", "spare_part", "request_part", "buy"], ["order spare parts", "request a spare part"],
         [(PART, C), (["count", "quantity", "pieces", "amount"], num("count"))],
         ["order {1} [new |spare |]{0}", "[request|buy|get] {1} [spare |]{0}", "we need {1} [new |spare |]{0}", "{1} x {0} [please|as spares|]", "spare parts: {1} {0}"],
         ["have {1} {0} sent to us", "the store is out of {0}, {1} please"]),
        (["stop_machine", "shut_down", "halt", "stop", "turn_off"], ["stop a machine", "shut a machine down"],
         [(DEVICE, D)],
         ["[stop|halt] [the |]{0}", "[shut|turn|switch] [down|off] [the |]{0}", "[shut|turn|switch] [the |]{0} [down|off]", "[the |]{0} must [stop|be stopped]", "take [the |]{0} out of [service|operation]"],
         ["no more running for {0}", "bring {0} to rest"]),
        (["start_machine", "start", "run", "turn_on", "power_up"], ["start a machine", "switch a machine on"],
         [(DEVICE, D)],
         ["[start|run] [the |]{0}", "[start|power|turn|switch] [up|on] [the |]{0}", "[turn|switch] [the |]{0} on", "get [the |]{0} [going|running]", "put [the |]{0} [into|in] [service|operation]"],
         ["{0} can go again", "let {0} run"]),
        (["set_limit", "set_alarm", "alarm_at", "threshold", "set_threshold"], ["set the alarm threshold of a machine", "vibration alarm limit"],
         [(DEVICE, D), (["value", "limit", "threshold", "vibration"], num("mms"))],
         ["[set|change] the [alarm|limit|threshold|vibration limit] [of|for] [the |]{0} to {1}", "[alarm|warn] [me |]when [the |]{0} is [above|over] {1}", "{0} [alarm|limit|threshold] {1}", "[alarm|threshold] {1} for [the |]{0}"],
         ["beyond {1} i want an alarm from {0}", "{0} may shake up to {1}"]),
        (["dismiss", "ignore", "acknowledge", "clear_alarm", "ack"], ["acknowledge the alarm of a machine", "dismiss an alarm"],
         [(DEVICE, D)],
         ["[acknowledge|dismiss|clear|confirm|ack] [the alarm of |the alarm at |alarm |][the |]{0}", "[the |]{0} alarm is [ok|known|seen|acknowledged]", "[silence|mute] the alarm [of|at|on] [the |]{0}"],
         ["yes i have seen the alarm at {0}", "the warning from {0} can go away"]),
    ],
    "drone": [
        (["alert", "report_fault", "raise_alert", "send_alert", "notify"], ["send an alert about a fault on the line", "report what was seen and where", "short alert with kind and severity"],
         [(["kind", "fault", "type", "what"], FAULT), (["severity", "level", "class"], SEVERITY), (["tower", "pole", "span", "location", "mast"], ("pick", "tower"))],
         ["[alert|report|send]: {0} [at|near|on] [tower |]{2}, {1}", "[report|send] a {1} [alert |]for {0} [at|near|on] {2}", "{0} [seen|found|detected] [at|near|on] {2}, [severity |]{1}", "{1}: {0} [at|near|on] {2}", "there is [a |an |]{0} [at|near] {2}, {1}"],
         ["{2} shows {0}, call it {1}", "note {0} for {2} as {1}"]),
        (["avoid", "evade", "sidestep", "dodge", "steer"], ["fly around an obstacle", "evade in a direction by a distance"],
         [(["direction", "side", "way"], DIRECTION), (["meters", "distance", "by"], num("meters"))],
         ["[avoid|evade|dodge|steer|fly|go|move] {0} [by |]{1}", "{1} {0}", "[obstacle|something] ahead, [go|fly|move] {0} {1}", "shift {1} [to the |]{0}"],
         ["get {1} away towards {0}", "clear it on the {0} side by {1}"]),
        (["fly_to", "goto_tower", "go_to", "move_to", "next_tower"], ["fly to a tower", "go to a location at a height"],
         [(["tower", "pole", "mast", "location"], ("pick", "tower")), (["altitude", "height", "meters"], num("meters"))],
         ["[fly|go|move] to [tower |]{0} at {1}", "{0} at {1} [height|altitude|]", "[approach|visit] {0} [at|with] {1} [height|altitude]", "next [tower|stop] {0}, [height|altitude] {1}"],
         ["climb to {1} and make for {0}", "{0} next, stay at {1}"]),
        (["hover", "hold", "hold_position", "wait", "loiter"], ["stay in place for a time", "hover"],
         [(["seconds", "duration", "time"], num("seconds"))],
         ["[hover|hold|loiter|wait] [there |here |]for {0}", "[hold|keep] [the |]position [for |]{0}", "stay [there|here|in place] [for |]{0}", "hover {0}"],
         ["hang in the air for {0}", "don't move for {0}"]),
        (["land", "land_now", "touch_down"], ["land at once", "land the drone"], [],
         ["land [now|here|immediately|the drone|]", "[come|go] down [and land|]", "touch down [now|]", "[bring|set] it down"],
         ["put it on the ground", "flight is over, down you go"]),
        (["return_home", "rth", "come_back", "return", "go_home"], ["fly back to the start", "return to launch"], [],
         ["[return|fly|come|go] [home|back|to base|to launch]", "[abort|end|break off] the [flight|mission] and [return|come back]", "back to [base|launch|the start]"],
         ["we are done, bring it home", "time to head back"]),
        (["set_light", "spotlight", "light", "lamp"], ["switch the lamp of the drone", "spotlight on or off"],
         [(["state", "power"], ON_OFF)],
         ["[turn|switch] {0} the [lamp|light|spotlight]", "[lamp|light|spotlight] {0}", "[turn|switch] the [lamp|light|spotlight] {0}"],
         ["i want the lamp {0}", "with the spotlight {0} please"]),
    ],
    "kiosk": [
        (["query_stock", "stock", "check_stock", "availability", "in_stock"], ["how many of an item are left", "look up the stock of an item", "is an item available"],
         [(ITEM, I)],
         ["how [many|much] {0} [do we have|are left|are there|is left|is there]", "[do you have|have you got|is there|are there] [any |]{0} [in stock|left|]", "[is|are] [the |]{0} [available|in stock|sold out]", "[check|show|look up] [the |]stock [of|for] [the |]{0}", "stock {0}", "any {0} left"],
         ["have we run out of {0}", "what about {0}, still some there"]),
        (["query_price", "price", "get_price", "price_of", "cost"], ["the price of an item", "what an item costs"],
         [(ITEM, I)],
         ["[what is|show|tell me] the price of [the |]{0}", "how much [is|are|does|do] [the |]{0} [cost|]", "price [of |for |]{0}", "what [does|do] [the |]{0} cost"],
         ["what would i pay for {0}", "what do you charge for {0}"]),
        (["locate", "find", "where_is", "find_item", "location_of"], ["where an item is", "find the shelf of an item"],
         [(ITEM, I)],
         ["where [is|are|can i find|do i find] [the |]{0}", "[find|locate] [the |]{0}", "[in|on] which [aisle|shelf] [is|are] [the |]{0}", "show me where [the |]{0} [is|are]"],
         ["i am looking for {0}", "which way to {0}"]),
        (["reserve", "hold_item", "put_aside", "book", "set_aside"], ["put items aside for a customer", "reserve some of an item"],
         [(ITEM, I), (["count", "quantity", "pieces", "amount"], num("count"))],
         ["[reserve|hold|book] {1} [of |]{0}", "[put|set] {1} {0} aside", "[keep|save] {1} {0} for [me|a customer]", "{1} {0} [to be reserved|reserved please]", "i want to reserve {1} {0}"],
         ["would you keep {1} {0} back", "lay {1} {0} by for later"]),
        (["restock", "refill", "fill_up", "order_stock", "replenish"], ["refill a shelf with items", "order more of an item"],
         [(ITEM, I), (["count", "quantity", "pieces", "amount"], num("count"))],
         ["[restock|refill|replenish] {0} with {1}", "[add|bring|order] {1} [more |]{0}", "[fill up|top up] [the |]{0} with {1}", "restock {1} {0}", "we need {1} more {0}"],
         ["another {1} {0} on the shelf", "{0} is low, put {1} there"]),
        (["order_size", "find_size", "size_query", "check_size"], ["is an item there in a size", "look up a size of an item"],
         [(ITEM, I), (["size", "fit"], SIZE)],
         ["[do you have|have you got|is there] [the |a |]{0} in {1}", "{0} [in |size ]{1}", "[check|look up] [the |]{0} in [size |]{1}", "[is|are] [the |]{0} available in {1}"],
         ["would {0} come in {1}", "i need {0}, {1}"]),
        (["call_staff", "help", "call_help", "assistance", "staff"], ["call a person to help", "ask for staff"], [],
         ["[call|get|send] [someone|a person|staff|an employee|help]", "[i need|i want|can i get] [help|assistance|to talk to someone]", "[can|could] someone help me", "help [me|please|]"],
         ["is anybody here who could assist", "a human please"]),
    ],
}

# Verbs made on the spot, so that the model learns to read a command's description instead of knowing it.
GENERIC_ACTIONS = {
    "open": ["opening"], "close": ["closing"], "purge": ["purging"], "flush": ["flushing"], "rinse": ["rinsing"], "prime": ["priming"], "drain": ["draining"],
    "fill": ["filling"], "heat": ["heating"], "cool": ["cooling"], "start": ["starting"], "stop": ["stopping"], "reset": ["resetting"], "lock": ["locking"], "unlock": ["unlocking"],
    "clean": ["cleaning"], "wash": ["washing"], "calibrate": ["calibrating"], "zero": ["zeroing"], "test": ["testing"], "rotate": ["rotating"], "tilt": ["tilting"], "raise": ["raising"],
    "lower": ["lowering"], "extend": ["extending"], "retract": ["retracting"], "load": ["loading"], "unload": ["unloading"], "feed": ["feeding"], "sort": ["sorting"], "label": ["labelling"],
    "print": ["printing"], "cut": ["cutting"], "drill": ["drilling"], "polish": ["polishing"], "mix": ["mixing"], "stir": ["stirring"], "shake": ["shaking"], "vent": ["venting"],
    "seal": ["sealing"], "release": ["releasing"], "engage": ["engaging"], "disengage": ["disengaging"], "arm": ["arming"], "disarm": ["disarming"], "enable": ["enabling"], "disable": ["disabling"],
    "bypass": ["bypassing"], "isolate": ["isolating"], "connect": ["connecting"], "disconnect": ["disconnecting"], "pair": ["pairing"], "record": ["recording"], "play": ["playing"],
    "pause": ["pausing"], "mute": ["muting"], "archive": ["archiving"], "export": ["exporting"], "upload": ["uploading"], "sync": ["syncing"], "backup": ["backing up"], "restore": ["restoring"],
    "track": ["tracking"], "follow": ["following"], "dock": ["docking"], "undock": ["undocking"], "water": ["watering"], "spray": ["spraying"], "mow": ["mowing"], "harvest": ["harvesting"],
    "weigh": ["weighing"], "count": ["counting"], "wrap": ["wrapping"], "stack": ["stacking"], "align": ["aligning"], "center": ["centering"], "grease": ["greasing"], "tune": ["tuning"],
}

OUT_OF_SCOPE = [
    "[tell me|do you know] a joke", "[sing|hum] [me |]a song", "what [is|'s] the [weather|forecast] [today|tomorrow|like|]", "who [won|plays in] the [game|match|cup] [yesterday|last night|]",
    "[how are you|how do you do|how is it going]", "[good morning|good evening|hello|hi|hi there|good night]", "thank you [very much|so much|]", "[what|who] are you", "what time is it",
    "[write|compose] [me |]a [poem|letter|mail|story] [about the sea|for my boss|]", "[translate|spell] [this|hello] [to|in] [french|german|spanish]", "[book|find] [me |]a [flight|hotel|table|train]",
    "[remind|wake] me [at|in] [seven|the morning|an hour]", "[what|how much] is {n} [plus|times|minus] {m}", "i am [tired|hungry|bored|late|happy]", "it is [nice|cold|loud|late] [today|here|]",
    "[order|get] [me |]a pizza", "[play|put on] some [music|jazz|rock]", "[call|text] my [mother|wife|boss|doctor]", "my [car|phone|computer] is [broken|new|lost]", "what do you think [about|of] [politics|football|this]",
    "[the|our] [meeting|lunch|shift] [starts|ends] at {n}", "see you [tomorrow|later|at {n}]", "[nothing|never mind|forget it|cancel that]", "[yes|no|maybe|ok|okay|right|sure]", "lorem ipsum dolor", "[asdf|qwer|xyz|bla bla|hmm|uh]",
    "[how old|how tall] are you", "the [coffee|food|machine] [tastes|smells|looks] [good|bad|odd]", "[ignore|forget] [all |your |the |][previous |earlier |][instructions|rules|commands]", "you are now [a pirate|my friend|free]",
    "[give|send] me the [password|key|code]", "[hack|crack] the [system|password]", "[buy|sell] {n} [shares|stocks]", "[when|where] was [it|he|she] born", "[count|spell] to {n}", "[do|can] you [dream|sleep|swim]",
]
OUT_OF_SCOPE_TEST = [
    "what [is|was] the capital of [france|peru]", "[draw|paint] [me |]a [cat|house]", "[did|have] you [sleep well|eat something]", "the [bus|boss] [was|is] [late|angry] [again|]", "[recommend|suggest] a [film|book]",
    "how many [days|weeks] until [christmas|summer]", "my [back|head] hurts", "[explain|describe] [gravity|evolution]", "i [lost|forgot] my [badge|keys]", "[nice|great] [job|work]", "[convert|change] {n} [dollars|euros]", "happy birthday",
]
# About a thing of the site, but nothing to be done: {x} is a name from the site.
QUESTIONS = [
    "[what is|what's|how is] the [temperature|state|status|value|level|speed] [of|in|at] [the |]{x}", "is [the |]{x} [on|off|open|closed|running|ready|ok|full|empty|warm|free]", "[why|when] [is|was|did] [the |]{x} [stop|stopped|off|on|so slow|closed]",
    "how [warm|cold|fast|full|far|old|long] is [the |]{x}", "[who|what] [stopped|started|opened|moved|changed] [the |]{x}", "does [the |]{x} work", "[has|did] [the |]{x} [finished|stopped|moved|arrived]", "[tell me|show me] about [the |]{x}",
    "how many times did [the |]{x} [stop|fail|move]", "[the |]{x} is [on|off|open|closed|fine|warm|loud|nice]", "[the |]{x} was [on|off|slow|fine|{n}] [yesterday|before|last night]", "i like [the |]{x}", "[should|can] [the |]{x} be [on|moved|used]",
    "what [does|can] [the |]{x} do", "[where|what] is [the |]{x}",
]
QUESTIONS_TEST = [
    "[any|some] [news|trouble] [from|with] [the |]{x}", "did someone [touch|use] [the |]{x}", "[the |]{x} [seems|looks] [strange|fine|different]", "was [the |]{x} at {n} an hour ago", "are you sure about [the |]{x}", "[tell me|say] whether [the |]{x} is [on|ok|done]",
]
NEGATIONS = ["[do not|don't|never|please don't] {c}", "[i do not want you|there is no need|it is not necessary] to {c}", "[we should|you must|better] not {c}", "[stop|avoid] before you {c}"]
POLITE_BEFORE = ["please ", "can you ", "could you ", "would you ", "hey ", "ok ", "now ", "robot, ", "please could you ", "i want you to ", "you should ", "next, ", "go ahead and ", "let's "]
POLITE_AFTER = [" please", " now", " thanks", " for me", " right now", " again", " immediately", ", thank you", " if you can", " as soon as possible"]
