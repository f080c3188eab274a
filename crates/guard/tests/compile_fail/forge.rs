use ganglion_guard::Approved;
use ganglion_site::Command;

fn driver(_: Approved<Command>) {}

fn main() {
    let command = Command { verb: 0, values: [ganglion_site::Value::Absent; 8] };
    driver(Approved(command));
    driver(Approved::seal(command));
    driver(command.into());
    driver(Approved::default());
}
