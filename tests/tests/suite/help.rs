//! The help of every program and of all its subcommands.

use codedeploy_tests::programs::{Program, Programs};

/// The help of a program, and below it that of each subcommand.
async fn help(name: &str, program: Program) -> String {
    let mut pages = String::new();
    let mut commands = vec![Vec::new()];
    while let Some(words) = commands.pop() {
        let mut command = program.command(words.iter().map(String::as_str).chain(["--help"]));
        // Some help shows the environment.
        let output = command.env_clear().output().await.unwrap();
        let page = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{name} {words:?}: {page}"
        );
        pages += &format!(
            "\n$ {} --help\n{page}",
            [&[name.to_owned()][..], &words].concat().join(" ")
        );
        let listed = page.lines().skip_while(|line| *line != "Commands:").skip(1);
        let listed = listed
            .take_while(|line| !line.is_empty())
            .filter_map(|line| {
                let name = line
                    .strip_prefix("  ")
                    .filter(|rest| !rest.starts_with(' '))?
                    .split(' ')
                    .next()?;
                (name != "help").then(|| [&words[..], &[name.to_owned()]].concat())
            });
        commands.extend(listed.collect::<Vec<_>>().into_iter().rev());
    }
    pages
}

#[tokio::test]
async fn the_agent() {
    insta::assert_snapshot!(
        "codedeploy-agent",
        help("codedeploy-agent", Programs::built().agent).await
    );
}

#[tokio::test]
async fn the_local_agent() {
    insta::assert_snapshot!(
        "codedeploy-local",
        help("codedeploy-local", Programs::built().local).await
    );
}

#[tokio::test]
async fn the_controller() {
    let controller = Programs::built().controller;
    insta::assert_snapshot!(
        "codedeploy-controller",
        help("codedeploy-controller", controller).await
    );
}

#[tokio::test]
async fn the_quickstart() {
    let quickstart = Program::at(env!("CARGO_BIN_EXE_quickstart"));
    insta::assert_snapshot!("quickstart", help("quickstart", quickstart).await);
}
